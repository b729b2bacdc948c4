"""Term and popularity channels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data_exchange_center.recall_parts import HistoryWeights
from offline.recall.known_rows import KnownRows
from offline.recall.popularity import DAY, fit_popularity
from offline.recall.terms import fit_terms, item_terms, preferred
from tests.unit.recall.world import START, make_events

WEIGHTS = HistoryWeights()


def items_with(*terms: list[str]) -> pa.Table:
    return pa.table({"item_id": list(range(len(terms))), "genres": pa.array(list(terms), pa.list_(pa.string()))})


def test_a_user_prefers_the_genre_that_most_of_the_history_is_in(world: KnownRows) -> None:
    terms, _ = preferred(fit_terms(world.items, world.events, world.weights))
    liked = ("Comedy", "Drama", "Horror", "War")
    right = [bool(own) and own[0] == liked[user % 4] for user, own in enumerate(terms)]
    assert np.mean(right) > 0.95


def test_a_recent_event_weighs_more_than_an_old_one() -> None:
    items = items_with(["old"], ["new"])
    events = make_events([(0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 0, 1)], users=2, items=2)
    terms, _ = preferred(fit_terms(items, events, WEIGHTS))
    assert (terms[0][0], terms[1][0]) == ("new", "old")


def test_a_disliked_term_is_not_preferred() -> None:
    items = items_with(["A"], ["B"])
    events = make_events([(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)], users=2, items=2)
    terms, _ = preferred(fit_terms(items, events, WEIGHTS))
    assert terms[0] == ["B"]


def test_a_rare_term_is_stronger_than_a_common_one() -> None:
    items = items_with(["common"], ["common"], ["common"], ["rare"])
    events = make_events([(0, 0, 1), (0, 3, 1)], users=1, items=4)
    channel = fit_terms(items, events, WEIGHTS)
    strength = dict(zip(channel.terms, np.split(channel.strength.values, channel.strength.indptr[1:-1]), strict=True))
    assert strength["rare"].max() > strength["common"].max() > 0


def test_inside_a_term_the_popular_item_is_stronger() -> None:
    items = items_with(["A"], ["A"], ["A"])
    events = make_events([(0, 1, 1), (1, 1, 1), (1, 2, 1)], users=2, items=3)
    strength = fit_terms(items, events, WEIGHTS).strength.values
    assert strength[1] > strength[2] > strength[0] > 0


def test_terms_are_ordered_by_items_then_name_and_counted_once_per_item() -> None:
    terms, belongs = item_terms(items_with(["b", "b"], ["a"], ["c"], ["c", "b"]))
    assert terms == ("b", "c", "a")
    assert belongs.toarray().tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize("items", [pa.table({"item_id": [0, 1]}), items_with([], [])])
def test_without_terms_the_channel_is_empty_and_whole(items: pa.Table) -> None:
    events = make_events([(0, 0, 1), (0, 1, 0)], users=3, items=2)
    channel = fit_terms(items, events, WEIGHTS)
    assert channel.terms == ()
    assert channel.strength.indptr.tolist() == [0]
    assert preferred(channel)[0] == [[], [], []]


def test_a_segment_has_its_own_popularity() -> None:
    users = pa.table({"user_id": list(range(400)), "gender": pa.array(["F", "M"] * 200)})
    steps = [np.random.default_rng(user).permutation(10) for user in range(400)]
    rows = [(user, int(2 * step + user % 2), 1) for user in range(400) for step in steps[user]]
    found = fit_popularity(users, make_events(rows, users=400, items=20))
    assert found.segments == ("", "gender=F", "gender=M")
    assert found.of_user[:2] == ["gender=F", "gender=M"]
    assert found.scores[1, 0] > found.scores[0, 0] > found.scores[2, 0]


def test_attributes_that_say_nothing_make_no_segments(world: KnownRows) -> None:
    coins = np.random.default_rng(1).integers(0, 2, world.users.num_rows).astype(str)
    users = pa.table({"user_id": world.users["user_id"], "coin": pa.array(coins.tolist())})
    assert fit_popularity(users, world.events).segments == ("",)


def test_shares_of_every_segment_add_up_to_one(world: KnownRows) -> None:
    shares = np.exp(fit_popularity(world.users, world.events).scores) / world.events.item_count
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-4)


def test_popularity_fades_in_a_log_where_tastes_move_on() -> None:
    users, rows, times = 200, [], []
    random = np.random.default_rng(0)
    for user in range(users):
        for step, day in enumerate(range(0, 400, 20)):
            rows.append((user, int(step * 3 + random.integers(0, 6)), 1))
            times.append(START + day * DAY + user)
    found = fit_popularity(pa.table({"user_id": list(range(users))}), make_events(rows, users, 70, times))
    assert found.half_life is not None
    assert found.scores[0, 57] > found.scores[0, 10]


def test_popularity_does_not_fade_in_a_log_where_nothing_changes(world: KnownRows) -> None:
    assert fit_popularity(world.users, world.events).half_life in (None, 365)


def test_dislikes_make_nothing_popular() -> None:
    events = make_events([(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 1)], users=3, items=3)
    scores = fit_popularity(pa.table({"user_id": [0, 1, 2]}), events).scores[0]
    assert scores[1] > scores[0] == scores[2]
