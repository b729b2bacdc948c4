"""`serve.suppress_impressions_hours`: what a user was shown lately is left out of the next answers, and nothing else changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from data_exchange_center.errors import SettingsError
from online.pipeline.visitor import shown_lately
from tests.factories import make_settings
from tests.unit.online.conftest import Chain, make_chain

HOURS = 2.0
NOW = 893_300_000
ITEMS = 60
WAIT_S = 5.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain that suppresses what was shown."""
    folder = tmp_path_factory.mktemp("suppression")
    yield from make_chain(folder, {"serve.suppress_impressions_hours": HOURS}, ids="int", users=25, items=ITEMS)


def ask(chain: Chain, user: int, size: int = 5, **more: Any) -> list[int]:
    answer = chain.client.post("/ml/rec", json={"userid": user, "size": size, "now": NOW, **more})
    assert answer.status_code == 200
    return [item["itemid"] for item in answer.get_json()["item_list"]]


def wait_for(chain: Chain, user: int, items: set[int]) -> None:
    """Until the answer log has noted that these items were shown."""
    deadline = time.monotonic() + WAIT_S
    while not items <= set(chain.stores.users.read(chain.settings.scene, chain.release.id, user, 1.0).shown):
        assert time.monotonic() < deadline, "the list was not noted"
        time.sleep(0.01)


def users(chain: Chain) -> list[int]:
    found: list[int] = chain.release.table("users")["user_id"].to_pylist()
    return found


def test_an_answered_list_is_left_out_of_the_next_one(own: Chain) -> None:
    user = users(own)[0]
    first = ask(own, user)
    wait_for(own, user, set(first))
    second = ask(own, user)
    assert len(second) == 5
    assert not set(first) & set(second)


def test_what_was_shown_longer_ago_comes_back(own: Chain) -> None:
    user = users(own)[1]
    first = ask(own, user)
    wait_for(own, user, set(first))
    assert ask(own, user, now=NOW + int(HOURS * 3600) + 1) == first


def test_an_impression_event_counts_as_shown(own: Chain) -> None:
    user = users(own)[2]
    best = ask(own, user, 1, explain=True)[0]
    shown = {"event_id": "shown", "userid": user, "itemid": best, "event": "impression", "timestamp": NOW - 60}
    own.client.post("/ml/events", json={"events": [shown | {"request_id": "a-list"}]})
    assert best not in ask(own, user, ITEMS, explain=True)
    assert best in ask(own, user, ITEMS, explain=True, now=NOW + int(HOURS * 3600))


def test_an_explained_list_is_not_shown_to_its_user(own: Chain) -> None:
    user, other = users(own)[3:5]
    ask(own, user, explain=True)
    wait_for(own, other, set(ask(own, other)))  # the log is written in order
    assert own.stores.users.read(own.settings.scene, own.release.id, user, 1.0).shown == {}


def test_a_list_has_every_eligible_item_and_no_other(own: Chain) -> None:
    user = users(own)[5]
    everything = ask(own, user, ITEMS, explain=True)
    first = ask(own, user, 7)
    wait_for(own, user, set(first))
    assert set(ask(own, user, ITEMS, explain=True)) == set(everything) - set(first)


def test_nothing_is_noted_and_nothing_left_out_by_default(int_chain: Chain) -> None:
    user = users(int_chain)[6]
    assert ask(int_chain, user) == ask(int_chain, user)
    assert int_chain.stores.users.read(int_chain.settings.scene, int_chain.release.id, user, 1.0).shown == {}


@pytest.mark.parametrize(("seconds", "left_out"), [(0, []), (10, ["new"]), (20, ["new", "old"])])
def test_the_age_of_an_impression_decides(seconds: float, left_out: list[str]) -> None:
    assert shown_lately({"new": 95, "old": 80}, 100, seconds) == left_out


@pytest.mark.parametrize("hours", [-1, 3000, float("nan"), float("inf")])
def test_hours_are_bounded(tmp_path: Any, hours: float) -> None:
    with pytest.raises(SettingsError, match="suppress_impressions_hours"):
        make_settings(tmp_path, **{"serve.suppress_impressions_hours": hours})
