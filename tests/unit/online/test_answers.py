"""What `/ml/rec`, `/ml/score` and `/ml/events` promise, on real embedded stores."""

from __future__ import annotations

import time
import uuid
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from online.api.schemas import EventsAnswer, models
from tests.unit.online.conftest import Chain

slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def users_of(chain: Chain) -> list[Any]:
    users: list[Any] = chain.release.table("users")["user_id"].to_pylist()
    return users


def history_of(chain: Chain, user: Any) -> set[Any]:
    profile = chain.view.tables.profile(user)
    return set(chain.view.item_ids[profile.history].tolist()) if profile is not None else set()


def ask(chain: Chain, **body: Any) -> dict[str, Any]:
    answer = chain.client.post("/ml/rec", json=body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    content: dict[str, Any] = answer.get_json()
    models(chain.view.user_type, chain.view.item_type).recommend_answer.model_validate(content)
    return content


@slow
@given(data=st.data())
def test_a_list_keeps_every_promise(chain: Chain, data: st.DataObject) -> None:
    users, items = users_of(chain), chain.view.item_ids.tolist()
    titles = chain.release.table("items")
    terms = dict(zip(items, titles["genres"].to_pylist(), strict=True))
    years = dict(zip(items, titles["year"].to_pylist(), strict=True))
    user = data.draw(st.sampled_from(users))
    exclude = data.draw(st.lists(st.sampled_from(items), max_size=30))
    wanted = data.draw(st.lists(st.sampled_from(sorted({term for own in terms.values() for term in own})), max_size=3))
    low, high = sorted(data.draw(st.tuples(st.integers(1925, 2000), st.integers(1925, 2000))))
    size = data.draw(st.integers(1, 500))
    channels = data.draw(st.sets(st.sampled_from(["vector", "term", "item", "popularity"]), min_size=1))
    answer = ask(
        chain,
        userid=user,
        size=size,
        exclude=exclude,
        filters={"genres": wanted, "year": {"gte": low, "lte": high}},
        channels=sorted(channels),
    )
    seen = history_of(chain, user)
    eligible = {
        item
        for item in items
        if item not in seen
        and item not in exclude
        and low <= years[item] <= high
        and (not wanted or set(wanted) & set(terms[item]))
    }
    got = [item["itemid"] for item in answer["item_list"]]
    scores = [item["score"] for item in answer["item_list"]]
    assert len(got) == len(set(got)) == min(size, len(eligible))
    assert set(got) <= eligible
    assert all(one >= other for one, other in pairwise(scores))
    assert np.isfinite(scores).all()
    assert answer["degraded"] == []
    assert answer["release"] == chain.release.id


@slow
@given(data=st.data())
def test_diversity_changes_the_order_and_keeps_the_promises(chain: Chain, data: st.DataObject) -> None:
    user = data.draw(st.sampled_from(users_of(chain)))
    size = data.draw(st.integers(1, 60))
    answer = ask(chain, userid=user, size=size, diversity=data.draw(st.floats(0.01, 1)))
    got = [item["itemid"] for item in answer["item_list"]]
    assert len(got) == len(set(got)) == min(size, chain.view.item_count - len(history_of(chain, user)))
    assert not set(got) & history_of(chain, user)


def test_min_score_is_the_least_score(chain: Chain) -> None:
    user = users_of(chain)[0]
    scores = [item["score"] for item in ask(chain, userid=user, size=50)["item_list"]]
    least = scores[10]
    kept = [item["score"] for item in ask(chain, userid=user, size=50, min_score=least)["item_list"]]
    assert kept == [score for score in scores if np.float32(score) >= np.float32(least)]


def test_an_unknown_user_gets_popular_items(chain: Chain) -> None:
    stranger: Any = 10**9 if chain.view.user_type == "int64" else "stranger"
    answer = ask(chain, userid=stranger, size=20, explain=True)
    assert answer["cold_start"] is True
    assert len(answer["item_list"]) == 20
    assert all(set(item["channels"]) == {"popularity"} for item in answer["item_list"])


def test_a_known_user_is_no_cold_start(chain: Chain) -> None:
    assert ask(chain, userid=users_of(chain)[0], size=1)["cold_start"] is False


def test_an_unknown_genre_has_no_items(chain: Chain) -> None:
    assert ask(chain, userid=users_of(chain)[0], filters={"genres": ["No such genre"]})["item_list"] == []


def test_explain_shows_channels_features_logits_and_timings(chain: Chain) -> None:
    user = users_of(chain)[0]
    answer = ask(chain, userid=user, size=10, explain=True)
    declared = {feature.name for feature in chain.view.spec.inputs}
    for item in answer["item_list"]:
        assert set(item["features"]) == declared
        assert item["features"]["user_id"] == user
        assert item["features"]["item_id"] == item["itemid"]
        assert 1 / (1 + np.exp(-item["logits"]["score"])) == pytest.approx(item["score"], abs=1e-6)
        assert item["channels"]
    assert {"user", "recall", "features", "score", "order", "total"} <= set(answer["timings_ms"])


def test_without_explain_there_is_nothing_extra(chain: Chain) -> None:
    answer = ask(chain, userid=users_of(chain)[0], size=1)
    assert set(answer) == {"item_list", "release", "request_id", "cold_start", "degraded"}
    assert set(answer["item_list"][0]) == {"itemid", "score", "like"}


def test_the_channels_asked_for_are_the_ones_that_find(chain: Chain) -> None:
    answer = ask(chain, userid=users_of(chain)[0], size=5, channels=["vector"], explain=True)
    assert all(set(item["channels"]) == {"vector"} for item in answer["item_list"])


def test_a_channel_that_knows_nothing_of_the_user_is_filled_up_and_no_degradation(chain: Chain) -> None:
    stranger: Any = 10**9 if chain.view.user_type == "int64" else "stranger"
    answer = ask(chain, userid=stranger, size=5, channels=["vector", "term"], explain=True)
    assert answer["degraded"] == []
    assert [set(item["channels"]) for item in answer["item_list"]] == [{"fill"}] * 5


def test_a_query_string_answers_the_same(chain: Chain) -> None:
    user, exclude = users_of(chain)[0], chain.view.item_ids.tolist()[:2]
    by_body = ask(
        chain,
        userid=user,
        size=7,
        exclude=exclude,
        filters={"genres": ["Comedy", "Drama"], "year": {"gte": 1940}},
        now=900_000_000,
    )
    by_query = chain.client.get(
        "/ml/rec",
        query_string=[
            ("userid", str(user)),
            ("size", "7"),
            *[("exclude", str(item)) for item in exclude],
            ("genres", "Comedy"),
            ("genres", "Drama"),
            ("year_gte", "1940"),
            ("now", "900000000"),
        ],
    ).get_json()
    assert by_query["item_list"] == by_body["item_list"]


def test_the_moment_of_the_request_reaches_the_model(chain: Chain) -> None:
    user = users_of(chain)[0]
    answer = ask(chain, userid=user, size=1, now=123_456_789, explain=True)
    assert answer["item_list"][0]["features"]["now"] == 123_456_789
    profile = chain.view.tables.profile(user)
    assert profile is not None
    usual = ask(chain, userid=user, size=1, explain=True)["item_list"][0]["features"]["now"]
    assert usual == profile.last_timestamp + 1


def test_score_answers_in_the_order_asked_and_as_rec_does(chain: Chain) -> None:
    user = users_of(chain)[0]
    listed = ask(chain, userid=user, size=10)["item_list"][::-1]
    answer = chain.client.post("/ml/score", json={"userid": user, "itemids": [item["itemid"] for item in listed]})
    content = answer.get_json()
    models(chain.view.user_type, chain.view.item_type).score_answer.model_validate(content)
    assert content["score"] == pytest.approx([item["score"] for item in listed], abs=1e-6)
    assert content["like"] == pytest.approx([item["like"] for item in listed], abs=1e-6)
    assert content["unknown_items"] == []


def test_score_takes_new_and_repeated_items(chain: Chain) -> None:
    new: Any = 10**9 if chain.view.item_type == "int64" else "new"
    known = chain.view.item_ids.tolist()[0]
    body = {"userid": users_of(chain)[0], "itemids": [known, new, known], "explain": True}
    content = chain.client.post("/ml/score", json=body).get_json()
    assert content["unknown_items"] == [new]
    assert content["score"][0] == content["score"][2]
    assert np.isfinite(content["score"]).all()
    assert content["items"][1]["features"]["item_id"] == new


def event(chain: Chain, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": uuid.uuid4().hex,
        "userid": users_of(chain)[-1],
        "itemid": chain.view.item_ids.tolist()[0],
        "event": "click",
        "timestamp": 900_000_000,
    } | changes


def test_an_item_interacted_with_is_not_recommended_again(chain: Chain) -> None:
    user = users_of(chain)[-1]
    best = ask(chain, userid=user, size=1)["item_list"][0]["itemid"]
    sent = chain.client.post("/ml/events", json={"events": [event(chain, itemid=best)]})
    assert sent.status_code == 202
    EventsAnswer.model_validate(sent.get_json())
    assert best not in {item["itemid"] for item in ask(chain, userid=user, size=500)["item_list"]}


def test_an_impression_is_no_interaction(chain: Chain) -> None:
    user = users_of(chain)[-2]
    best = ask(chain, userid=user, size=1)["item_list"][0]["itemid"]
    chain.client.post("/ml/events", json={"events": [event(chain, userid=user, itemid=best, event="impression")]})
    assert ask(chain, userid=user, size=1)["item_list"][0]["itemid"] == best


def test_an_event_counts_once(chain: Chain) -> None:
    own = event(chain)
    first = chain.client.post("/ml/events", json={"events": [own, own]}).get_json()
    again = chain.client.post("/ml/events", json={"events": [own]}).get_json()
    assert (first["accepted"], first["duplicates"]) == (1, 1)
    assert (again["accepted"], again["duplicates"]) == (0, 1)


def test_a_newcomer_with_likes_is_recommended_what_is_near_to_them(chain: Chain) -> None:
    newcomer: Any = 2 * 10**9 if chain.view.user_type == "int64" else "newcomer"
    liked = chain.view.item_ids.tolist()[:3]
    entries = [event(chain, userid=newcomer, itemid=item, event="like") for item in liked]
    chain.client.post("/ml/events", json={"events": entries})
    answer = ask(chain, userid=newcomer, size=50, explain=True)
    assert answer["cold_start"] is True
    assert not {item["itemid"] for item in answer["item_list"]} & set(liked)
    assert any("item" in found["channels"] for found in answer["item_list"])
    assert any("vector" in found["channels"] for found in answer["item_list"])


def test_a_blocked_item_is_in_no_answer(chain: Chain) -> None:
    user = users_of(chain)[1]
    best = ask(chain, userid=user, size=1)["item_list"][0]["itemid"]
    chain.stores.users.block(chain.settings.scene, [best], 5.0)
    try:
        assert best not in {item["itemid"] for item in ask(chain, userid=user, size=500)["item_list"]}
    finally:
        chain.stores.users.block(chain.settings.scene, [best], 5.0, blocked=False)


@pytest.mark.parametrize("given", ["abc-123", "A.b:c_d", "x" * 128])
def test_a_request_id_is_taken_over(chain: Chain, given: str) -> None:
    answer = chain.client.post("/ml/rec", json={"userid": users_of(chain)[0]}, headers={"X-Request-ID": given})
    assert answer.get_json()["request_id"] == answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "with blank", "x" * 129, "ä", "a/b", '"'])
def test_a_request_id_of_another_form_is_replaced(chain: Chain, given: str) -> None:
    answer = chain.client.get("/healthz", headers={"X-Request-ID": given})
    assert len(answer.headers["X-Request-ID"]) == 32


def test_an_answered_list_is_kept_under_its_request_id(chain: Chain) -> None:
    user = users_of(chain)[0]
    answer = ask(chain, userid=user, size=5)
    deadline = time.monotonic() + 10
    while (kept := chain.stores.users.answer(chain.settings.scene, answer["request_id"], 5.0)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert kept["user_id"] == user
    assert kept["release"] == chain.release.id
    assert kept["items"] == [item["itemid"] for item in answer["item_list"]]
    assert kept["scores"] == pytest.approx([item["score"] for item in answer["item_list"]], abs=1e-6)
