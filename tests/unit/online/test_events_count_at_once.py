"""What a user does counts for the next request: in the filter, in recall's history and in the ranker's features; the parity check
replays it, and names a feature that was brought up to date wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from data_exchange_center.release import open_release
from offline_to_online.rank.comparison import Findings
from offline_to_online.rank.parity_requests import ParityRequest
from offline_to_online.rank.s3_check_offline_and_online import compare, summary
from online.pipeline import since_release
from online.stores.ports import Id, RecentEvent
from tests.unit.online.conftest import Chain, make_chain
from tests.unit.online.test_parity_check import graph_scores

USERS, ITEMS = 20, 50
NEWCOMER = "newcomer"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain whose user features follow what happens; half of the users have done something since its release."""
    folder = tmp_path_factory.mktemp("events")
    for chain in make_chain(folder, ids="string", users=USERS, items=ITEMS, follows=True):
        post(chain, [event for user in users(chain)[::2] for event in happened(chain, user)])
        yield chain


def users(chain: Chain) -> list[Id]:
    found: list[Id] = chain.release.table("users")["user_id"].to_pylist()
    return found


def last(chain: Chain, user: Id) -> int:
    return int(chain.view.tables.profile(user).last_timestamp)  # type: ignore[union-attr]


def happened(chain: Chain, user: Id) -> list[dict[str, Any]]:
    """Events after the user's last one, in the same second, late, repeated, and with an item that the release does not know."""
    items, at = chain.view.item_ids.tolist(), last(chain, user)
    told: list[tuple[str, Id, int, float | None]] = [
        ("rating", items[3], at + 50, 5.0),
        ("click", items[8], at + 50, None),
        ("dislike", items[13], at + 4000, None),
        ("click", items[8], at + 4100, None),
        ("like", items[21], at - 3_000_000, None),
        ("rating", "unheard-of", at + 4200, 1.5),
        ("impression", items[30], at + 4300, None),
    ]
    return [
        {
            "event_id": f"{user}-{place}",
            "userid": user,
            "itemid": item,
            "event": kind,
            "timestamp": time,
            "value": value,
        }
        for place, (kind, item, time, value) in enumerate(told)
    ]


def post(chain: Chain, events: list[dict[str, Any]]) -> None:
    answer = chain.client.post("/ml/events", json={"events": events})
    assert answer.status_code == 202, answer.get_data(as_text=True)


def recommend(chain: Chain, user: Id, **more: Any) -> dict[str, Any]:
    answer = chain.client.post("/ml/rec", json={"userid": user, "size": 10, "explain": True, **more})
    content: dict[str, Any] = answer.get_json()
    return content


def features(chain: Chain, user: Id, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = recommend(chain, user, **more)["item_list"][0]["features"]
    return found


def check(chain: Chain, requests: int = USERS) -> Findings:
    def ask(request: ParityRequest) -> dict[str, Any]:
        content: dict[str, Any] = chain.client.post(request.path, json=request.body).get_json()
        return content

    def accepted(user: Id) -> Sequence[RecentEvent]:
        return chain.stores.users.read(chain.settings.scene, chain.release.id, user, 5.0).recent

    score = graph_scores(open_release(chain.release.path))
    return compare(chain.settings, chain.release, ask, score, requests, accepted)


def test_the_parity_check_replays_what_happened(own: Chain) -> None:
    findings = check(own)
    assert findings.ok, summary(findings)


def test_an_event_changes_features_recall_and_the_filter_of_the_next_request(own: Chain) -> None:
    user = users(own)[1]
    before = recommend(own, user)
    clicked, features_before = before["item_list"][0]["itemid"], before["item_list"][0]["features"]
    at = last(own, user) + 60
    told = {"event_id": "one", "userid": user, "itemid": clicked, "event": "click", "timestamp": at}
    post(own, [told])
    after = recommend(own, user)
    found = after["item_list"][0]["features"]
    assert clicked not in {item["itemid"] for item in after["item_list"]}
    assert found["history_items"][0] == clicked
    assert found["user_events"] == features_before["user_events"] + 1
    assert found["user_last_timestamp"] == at
    assert found["now"] == at + 1
    by_item = [
        {one["itemid"]: one["features"]["recall_item"] for one in answer["item_list"]} for answer in (before, after)
    ]
    shared = by_item[0].keys() & by_item[1].keys()
    assert any(by_item[0][item] != by_item[1][item] for item in shared)


def test_a_named_moment_sees_no_later_event(own: Chain) -> None:
    user = users(own)[0]
    at = last(own, user)
    counts = [features(own, user, now=at + after)["user_events"] for after in (49, 50, 4100, 5000)]
    assert counts == [counts[0], counts[0] + 2, counts[0] + 4, counts[0] + 5]


def test_somebody_unknown_is_known_by_events_alone(own: Chain) -> None:
    items = own.view.item_ids.tolist()
    told = [
        {
            "event_id": f"new-{place}",
            "userid": NEWCOMER,
            "itemid": items[place],
            "event": "like",
            "timestamp": 900 + place,
        }
        for place in range(3)
    ]
    post(own, told)
    found = features(own, NEWCOMER)
    assert found["user_events"] == found["user_positives"] == 3
    assert found["history_items"][:4] == [items[2], items[1], items[0], ""]
    assert 0 < found["user_global_rate"] < 1


def test_events_that_a_release_knows_do_not_count_again(own: Chain) -> None:
    user = users(own)[3]
    profile = own.view.tables.profile(user)
    assert profile is not None
    before = features(own, user)
    told = [
        {
            "event_id": f"again-{row}",
            "userid": user,
            "itemid": own.view.item_ids[row],
            "event": "click",
            "timestamp": int(at),
        }
        for row, at in zip(profile.history, profile.history_timestamps, strict=True)
    ]
    post(own, told)
    assert {**features(own, user), "now": 0} == {**before, "now": 0} | {
        name: value
        for name, value in features(own, user).items()
        if name.startswith(("recall_", "genres", "year", "item_"))
    }


@pytest.mark.parametrize("broken", ["user_residual_last20", "user_term_residual", "history_items"])
def test_a_broken_update_is_caught_and_named(own: Chain, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    sound = since_release.updated

    def wrong(*arguments: Any) -> dict[str, Any]:
        found = sound(*arguments)
        value = found[broken]
        found[broken] = value[1:] if isinstance(value, list) else np.asarray(value) + 0.01
        return found

    monkeypatch.setattr(since_release, "updated", wrong)
    findings = check(own, 8)
    assert not findings.ok
    assert findings.named()["feature"] == broken


def test_a_user_without_events_is_answered_from_the_stored_row(own: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> dict[str, Any]:
        raise AssertionError("nothing happened")

    monkeypatch.setattr(since_release, "updated", never)
    assert recommend(own, users(own)[5])["degraded"] == []
