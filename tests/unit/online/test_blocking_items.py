"""`/admin/items/...`: items that are in no list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.support.away import Away
from online.stores.ports import Id
from tests.unit.online.conftest import Chain
from tests.unit.online.test_degradation import GONE, ask

BEARER = {"Authorization": "Bearer secret"}


@pytest.fixture(autouse=True)
def let_in_again(chain: Chain) -> Iterator[None]:
    yield
    scene, users = chain.settings.scene, chain.stores.users
    users.block(scene, users.blocked(scene, 5.0), 5.0, blocked=False)


def post(chain: Chain, verb: str, items: list[Any]) -> Any:
    return chain.client.post(f"/admin/items/{verb}", json={"itemids": items}, headers=BEARER)


def lists(chain: Chain, **body: Any) -> set[Id]:
    """Every item that a user can be answered."""
    user = chain.release.table("users")["user_id"][1].as_py()
    answer = chain.client.post("/ml/rec", json={"userid": user, "size": 500, **body}).get_json()
    return {item["itemid"] for item in answer["item_list"]}


def test_a_blocked_item_is_in_no_list_until_it_is_let_in_again(chain: Chain) -> None:
    before = lists(chain)
    out = sorted(before, key=str)[:3]
    answer = post(chain, "block", out).get_json()
    assert (answer["changed"], answer["blocked"], answer["unknown_items"]) == (3, 3, [])
    assert lists(chain) == before - set(out)
    assert lists(chain, channels=["popularity"]) == before - set(out)
    held = chain.client.get("/admin/items/blocked", headers=BEARER).get_json()["itemids"]
    assert set(held) == set(out)
    assert post(chain, "unblock", out).get_json()["changed"] == 3
    assert lists(chain) == before


def test_blocking_again_changes_nothing(chain: Chain) -> None:
    item = chain.view.item_ids.tolist()[0]
    assert post(chain, "block", [item, item]).get_json()["changed"] == 1
    assert post(chain, "block", [item]).get_json() | {"request_id": ""} == {
        "changed": 0,
        "blocked": 1,
        "unknown_items": [],
        "request_id": "",
    }


def test_an_item_of_another_release_is_blocked_and_named_as_unknown(chain: Chain) -> None:
    strange: Id = 10**9 if chain.view.item_type == "int64" else "not yet"
    answer = post(chain, "block", [strange]).get_json()
    assert (answer["changed"], answer["unknown_items"]) == (1, [strange])


@pytest.mark.parametrize("body", [{}, {"itemids": []}, {"itemids": [None]}, {"itemids": 1}, {"itemids": [1.5]}, []])
def test_a_body_of_another_form_is_refused(chain: Chain, body: Any) -> None:
    assert chain.client.post("/admin/items/block", json=body, headers=BEARER).status_code == 400


def test_an_id_of_the_other_type_is_refused(chain: Chain) -> None:
    wrong: Id = "1" if chain.view.item_type == "int64" else 1
    refused = post(chain, "block", [wrong])
    assert refused.status_code == 400
    assert refused.get_json()["error"]["field"] == "itemids.0"


def test_the_list_of_blocked_items_needs_the_token(chain: Chain) -> None:
    assert chain.client.get("/admin/items/blocked").status_code == 401


def test_while_the_store_is_away_blocking_is_refused_and_what_was_blocked_stays_out(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = chain.view.item_ids.tolist()[:2]
    post(chain, "block", [first])
    gone = Away(chain.stores.users, GONE, "read", "block", "live")
    answer, degraded = ask(chain, replace(chain.stores, users=gone), size=90)
    assert degraded == ["user_store"]
    assert first not in answer.item_ids
    monkeypatch.setattr(chain.stores.users, "block", gone.block)
    refused = post(chain, "block", [second])
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "store_unavailable")
    monkeypatch.undo()
    assert chain.stores.users.blocked(chain.settings.scene, 5.0) == {first}


def test_blockings_are_counted(chain: Chain) -> None:
    post(chain, "block", chain.view.item_ids.tolist()[:2])
    chain.client.post("/admin/reload", json={}, headers=BEARER)
    text = chain.client.get("/metrics").get_data(as_text=True)
    assert 'marquee_item_blockings_total{outcome="blocked"}' in text
    assert "marquee_blocked_items 2.0" in text
