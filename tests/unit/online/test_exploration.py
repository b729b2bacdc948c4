"""`serve.explore_share`: a few places are drawn, the rest stays as the score has it, and the draw is known and repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_exchange_center.errors import SettingsError
from online.api import metrics
from online.pipeline.answer_log import content
from online.pipeline.context import RequestContext
from online.pipeline.explore import Exploration, explored
from online.pipeline.policy import Policy
from online.pipeline.query import Query
from online.pipeline.recommend import recommend
from tests.factories import make_settings
from tests.unit.online.conftest import Chain, make_chain

SHARE = 0.3
logits = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40).map(
    lambda values: np.array(values, np.float32)
)
explorations = st.builds(Exploration, share=st.just(SHARE), bonus=st.floats(0, 50), temperature=st.floats(0.01, 50))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain that explores."""
    folder = tmp_path_factory.mktemp("exploration")
    yield from make_chain(folder, {"serve.explore_share": SHARE, "serve.explore_temperature": 3.0}, users=30, items=90)


def ask(chain: Chain, request_id: str, **more: Any) -> list[dict[str, Any]]:
    body = {"userid": chain.release.table("users")["user_id"][0].as_py(), "size": 10, "now": 893_300_000, **more}
    answer = chain.client.post("/ml/rec", json=body, headers={"X-Request-ID": request_id})
    assert answer.status_code == 200 and answer.get_json()["request_id"] == request_id
    found: list[dict[str, Any]] = answer.get_json()["item_list"]
    return found


@given(logits, explorations, st.integers(0, 50), st.text(max_size=20), st.integers(0, 2**32 - 1))
def test_what_is_drawn_is_distinct_sorted_and_of_known_chance(
    values: np.ndarray, chosen: Exploration, count: int, request_id: str, seed: int
) -> None:
    events = np.random.default_rng(seed).integers(0, 1000, len(values))
    rest = np.flatnonzero(np.arange(len(values)) % 2 == 0)
    drawn, chances = explored(rest, values, events, count, chosen, request_id)
    assert len(drawn) == len(chances) == (count if 0 < count < len(rest) else 0)
    assert len(set(drawn.tolist())) == len(drawn) and set(drawn) <= set(rest)
    assert (np.diff(values[drawn]) <= 0).all()
    assert ((chances > 0) & (chances <= 1)).all()
    again, same = explored(rest, values, events, count, chosen, request_id)
    assert np.array_equal(drawn, again) and np.array_equal(chances, same)


def test_a_first_draw_comes_as_often_as_its_propensity_says() -> None:
    values, events = np.array([2.0, 1.0, 0.0, -1.0], np.float32), np.array([1000, 0, 10, 0])
    chosen, rest, draws = Exploration(SHARE, bonus=1.5, temperature=1.2), np.arange(4), 20_000
    came, promised = np.zeros(4), np.zeros(4)
    for number in range(draws):
        drawn, chances = explored(rest, values, events, 1, chosen, str(number))
        came[drawn[0]] += 1
        promised[drawn[0]] = chances[0]
    assert promised.sum() == pytest.approx(1.0)
    assert came / draws == pytest.approx(promised, abs=4 * 0.5 / np.sqrt(draws))


def test_an_item_that_is_hardly_known_is_drawn_more_often() -> None:
    values, rest = np.zeros(3, np.float32), np.arange(3)
    chosen = Exploration(SHARE, bonus=3.0, temperature=1.0)
    drawn = [explored(rest, values, np.array([0, 400, 400]), 1, chosen, str(n))[0][0] for n in range(200)]
    assert drawn.count(0) > 150


def test_the_best_keep_their_places_and_scores_and_the_order_is_by_score(own: Chain) -> None:
    plain = recommend(
        RequestContext(own.view, "plain", 5.0),
        own.stores,
        Query(own.release.table("users")["user_id"][0].as_py(), size=90, now=893_300_000),
        Policy(own.policy.scene, own.policy.clock, own.policy.prerank_size, own.policy.per_channel),
    )
    score_of = dict(zip(plain.item_ids, plain.score.tolist(), strict=True))
    seen = set()
    for number in range(30):
        items = ask(own, f"r{number}", explain=True)
        assert [item["itemid"] for item in items[:7]] == plain.item_ids[:7]
        assert [item["score"] for item in items] == [score_of[item["itemid"]] for item in items]
        assert (np.diff([item["score"] for item in items]) <= 0).all()
        assert [place for place, item in enumerate(items) if "explored" in item] == [7, 8, 9]
        seen.update(item["itemid"] for item in items[7:])
    assert len(seen) > 10


def test_the_same_request_gets_the_same_list_and_another_one_another(own: Chain) -> None:
    assert ask(own, "one") == ask(own, "one")
    assert len({str(ask(own, f"other-{number}")) for number in range(8)}) > 1


def test_a_list_of_all_candidates_and_a_short_one_explore_nothing(own: Chain) -> None:
    assert not any("explored" in item for item in ask(own, "short", size=3, explain=True))
    assert not any("explored" in item for item in ask(own, "whole", size=90, explain=True))


def test_diverse_lists_end_with_what_was_drawn(own: Chain) -> None:
    items = ask(own, "diverse", diversity=0.5, explain=True)
    assert len({item["itemid"] for item in items}) == 10
    assert [place for place, item in enumerate(items) if "explored" in item] == [7, 8, 9]


def test_it_is_counted_and_kept_with_the_answer(own: Chain) -> None:
    before = metrics.EXPLORED._value.get()
    ask(own, "counted")
    assert metrics.EXPLORED._value.get() == before + 3
    user = own.release.table("users")["user_id"][0].as_py()
    answer = recommend(RequestContext(own.view, "counted", 5.0), own.stores, Query(user, size=10), own.policy)
    kept = content(user, own.release.id, 1, answer)["explored"]
    assert [place for place, _ in kept] == [7, 8, 9] and all(0 < chance <= 1 for _, chance in kept)


def test_nothing_is_explored_unless_the_settings_say_so(int_chain: Chain) -> None:
    assert not any("explored" in item for item in ask(int_chain, "off", explain=True))


@pytest.mark.parametrize(("name", "value"), [("explore_share", 0.6), ("explore_bonus", -1), ("explore_temperature", 0)])
def test_settings_that_make_no_sense_are_refused(tmp_path: Any, name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=name):
        make_settings(tmp_path, **{f"serve.{name}": value})
