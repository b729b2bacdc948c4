"""Affinity: the scores against a slow reference, and that no training row sees itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_exchange_center import affinity as module
from data_exchange_center.affinity import NAMES, Affinity
from data_exchange_center.errors import DataError
from offline.recall.affinity import fit_affinity, training_scores
from offline.recall.known_rows import Events

USERS, ITEMS = 40, 15


def made_events(seed: int = 0, rows: int = 400) -> Events:
    """Ratings of random pairs, each at most once, in time order per user; half of the timestamps are shared."""
    random = np.random.default_rng(seed)
    pairs = random.permutation(USERS * ITEMS)[:rows]
    users, items = pairs // ITEMS, pairs % ITEMS
    timestamps = random.integers(0, 200, rows)
    order = np.lexsort((timestamps, users))
    values = random.integers(1, 6, rows).astype(np.float32)
    return Events(users[order], items[order], (values > 3).astype(np.int8), values, timestamps[order], USERS, ITEMS)


def reference(model: Affinity, history: np.ndarray, values: np.ndarray, item: int) -> tuple[float, float, float]:
    """The three scores as the docstring of data_exchange_center/affinity.py defines them, one neighbour at a time."""
    bounds = zip(model.indptr[:-1], model.indptr[1:], strict=True)
    similar = [dict(zip(model.indices[a:b].tolist(), model.values[a:b].tolist(), strict=True)) for a, b in bounds]
    mean = (values.sum() + 5 * model.mean) / (len(values) + 5)
    signed = positive = support = 0.0
    for j, value in zip(history.tolist(), values.tolist(), strict=True):
        similarity = similar[j].get(item, 0.0)
        residual = value - mean - model.bias[j]
        signed += similarity * residual
        positive += max(similarity, 0.0) * residual
        support += abs(similarity)
    return signed / (support + 0.5), positive, float(np.log1p(support))


@pytest.mark.parametrize("dense", [True, False])
def test_scores_are_the_sums_that_define_them(dense: bool) -> None:
    model = fit_affinity(made_events(), neighbours=6)
    model = model if dense else replace(model, dense=None)
    history, values = np.array([3, 9, 1, 4]), np.array([5, 1, 4, 2], np.float32)
    made = model.scores(history, values, np.arange(ITEMS))
    for item in range(ITEMS):
        assert [made[name][item] for name in NAMES] == pytest.approx(reference(model, history, values, item), abs=1e-5)


def test_only_the_newest_events_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_affinity(made_events())
    history, values = np.array([3, 9, 1, 4]), np.array([5, 1, 4, 2], np.float32)
    monkeypatch.setattr(module, "LIMIT", 2)
    cut, short = (model.scores(h, v, np.arange(ITEMS)) for h, v in ((history, values), (history[2:], values[2:])))
    assert all(np.array_equal(cut[name], short[name]) for name in NAMES)


def test_a_user_without_history_scores_zero() -> None:
    made = fit_affinity(made_events()).scores(np.empty(0, np.int32), np.empty(0, np.float32), np.arange(4))
    assert all(made[name].tolist() == [0.0] * 4 and made[name].dtype == np.float32 for name in NAMES)


def test_rows_outside_of_the_fit_are_scored_as_serving_would() -> None:
    events = made_events()
    known = events.timestamps < 150
    fit, model = events.take(known), fit_affinity(events.take(known), neighbours=6)
    queries = events.take(~known)
    made = training_scores(fit, events, queries, neighbours=6)
    for row in range(len(queries)):
        mine = (events.users == queries.users[row]) & (events.timestamps < queries.timestamps[row])
        expected = model.scores(events.items[mine], events.values[mine], queries.items[row : row + 1])
        assert [made[name][row] for name in NAMES] == pytest.approx([expected[name][0] for name in NAMES], abs=1e-5)


def test_a_row_that_was_fitted_on_is_scored_without_its_own_users_similarities() -> None:
    """Were a user's own ratings in the similarities, exchanging the rating of the scored row would change its score."""
    events = made_events()
    row = int(np.flatnonzero(events.timestamps == events.timestamps.max())[0])
    values = events.values.copy()
    values[row] = 6 - values[row]
    changed = replace(events, values=values)
    before, after = (training_scores(one, one, one)[NAMES[1]][row] for one in (events, changed))
    # the bias of the item is everybody's mean and moves a little; the similarities of the user's fold do not
    assert after == pytest.approx(before, abs=0.05)


def test_a_rows_own_value_and_its_future_do_not_reach_it() -> None:
    events = made_events()
    fit = events.take(events.timestamps < 100)
    queries = events.take(events.timestamps >= 100)
    values = events.values.copy()
    values[events.timestamps >= 150] = 1.0
    early = queries.timestamps <= 150
    before, after = (training_scores(fit, one, queries) for one in (events, replace(events, values=values)))
    assert all(np.array_equal(before[name][early], after[name][early]) for name in NAMES)
    assert not np.array_equal(before[NAMES[0]], after[NAMES[0]])


def test_items_beyond_the_exact_ones_have_no_neighbours() -> None:
    model = fit_affinity(made_events(), exact_items=5)
    assert (np.diff(model.indptr) > 0).sum() == 5 and set(model.indices.tolist()) == set(
        np.flatnonzero(np.diff(model.indptr))
    )


def test_it_comes_back_from_disk_or_names_what_is_broken(tmp_path: Path) -> None:
    model = fit_affinity(made_events(), neighbours=4)
    model.save(tmp_path)
    again = Affinity.load(tmp_path)
    assert again.mean == model.mean and np.array_equal(again.dense, model.dense)  # type: ignore[arg-type]
    np.save(tmp_path / "affinity_indices.npy", model.indices[:-1])
    with pytest.raises(DataError, match="contradict each other"):
        Affinity.load(tmp_path)
