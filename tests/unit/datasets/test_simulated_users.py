"""The feedback loop's users answer by the generator's truth."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.simulated_users import SimulatedUsers
from offline.datasets.synthetic import Truth, generate


@pytest.fixture(scope="module")
def people() -> SimulatedUsers:
    return SimulatedUsers.of(Truth(**generate(20, 60, 400, seed=1).truth))


def test_the_best_list_of_what_is_left_has_no_regret(people: SimulatedUsers) -> None:
    met = {1, 5, 9}
    left = [item for item in np.argsort(-people.takes[3]).tolist() if item not in met]
    got, best = people.regret(3, left[:10], met)
    assert got == pytest.approx(best)
    worse, best_again = people.regret(3, left[-10:], met)
    assert best_again == pytest.approx(best)
    assert worse < best


def test_users_take_what_they_like_more_often(people: SimulatedUsers) -> None:
    user = 4
    order = np.argsort(-people.takes[user])
    good, bad = order[:10].tolist(), order[-10:].tolist()
    taken = [
        sum(len(people.answer(user, shown, np.random.default_rng(seed))) for seed in range(50)) for shown in (good, bad)
    ]
    assert taken[0] > 1.5 * taken[1]


def test_an_answer_names_places_of_the_list_and_stars(people: SimulatedUsers) -> None:
    for seed in range(20):
        for one in people.answer(seed, range(10), np.random.default_rng(seed)):
            assert one.place in range(10)
            assert one.stars in (1.0, 2.0, 3.0, 4.0, 5.0)
