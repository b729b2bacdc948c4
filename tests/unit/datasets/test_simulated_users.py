"""The feedback loop's users answer by the generator's truth, in a world that moves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.support.simulated_users import World, taken_of, worth_of
from offline.datasets.synthetic import Truth, generate

DAYS = 4


@pytest.fixture(scope="module")
def world() -> World:
    truth = Truth(**generate(20, 60, 400, seed=1).truth)
    return World.of(truth, drift=0.2, new_items=0.25, days=DAYS, seed=1)


def test_the_best_list_of_what_is_left_misses_nothing(world: World) -> None:
    takes, out = world.takes(0)[3], {1, 5, 9}
    left = [item for item in np.argsort(-takes).tolist() if item not in out]
    best, worst = worth_of(takes, left[:10], out), worth_of(takes, left[-10:], out)
    assert best.got == pytest.approx(best.best) and worst.best == pytest.approx(best.best)
    assert worst.got < best.random == worst.random < best.got


def test_users_take_what_they_like_more_often(world: World) -> None:
    takes = world.takes(0)[4]
    order = np.argsort(-takes)
    taken = [
        sum(len(taken_of(takes, shown, np.random.default_rng(seed))) for seed in range(50))
        for shown in (order[:10].tolist(), order[-10:].tolist())
    ]
    assert taken[0] > 1.5 * taken[1]


def test_items_appear_on_their_day_and_stay(world: World) -> None:
    hidden = [set(world.hidden(day)) for day in range(DAYS + 1)]
    assert len(hidden[0]) == 15 and not hidden[DAYS]
    assert all(later < earlier for earlier, later in pairwise(hidden))


def test_tastes_turn_and_those_of_all_users_together_stay(world: World) -> None:
    first, later = world.takes(0), world.takes(3)
    like = [np.corrcoef(one, other)[0, 1] for one, other in zip(first, later, strict=True)]
    assert 0.2 < np.mean(like) < 0.99
    assert later.mean() == pytest.approx(first.mean(), rel=0.3)
    still = World.of(world.truth, drift=0.0, new_items=0.0, days=DAYS, seed=1)
    assert np.array_equal(still.takes(0), still.takes(DAYS)) and not still.hidden(0)
