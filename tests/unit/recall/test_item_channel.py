"""Item-to-item similarities."""

from __future__ import annotations

import numpy as np
import pytest

from data_exchange_center.recall_parts import HistoryWeights, Sparse
from data_exchange_center.settings import RecallSettings
from offline.recall.known_rows import KnownRows
from offline.recall.similarity import ease, fit_similarity, interactions
from tests.unit.recall.world import make_events


def dense(matrix: Sparse, items: int) -> np.ndarray:
    rows = np.repeat(np.arange(items), np.diff(matrix.indptr))
    found = np.zeros((items, items))
    found[rows, matrix.indices] = matrix.values
    return found


def direct_solution(x: np.ndarray, ridge: float) -> np.ndarray:
    """Each item regressed on the others, one linear system at a time."""
    items = x.shape[1]
    found = np.zeros((items, items))
    for item in range(items):
        others = np.delete(np.arange(items), item)
        gram = x[:, others].T @ x[:, others] + ridge * np.eye(len(others))
        found[others, item] = np.linalg.solve(gram, x[:, others].T @ x[:, item])
    return found


def test_ease_equals_one_ridge_regression_per_item() -> None:
    x = np.random.default_rng(0).random((40, 12)).round()
    np.testing.assert_allclose(ease(x.T @ x, 3.0), direct_solution(x, 3.0), atol=1e-10)


def test_the_channel_is_ease_on_weighted_interactions(world: KnownRows) -> None:
    settings = RecallSettings(neighbours=1000, item_regularization=20.0)
    items = world.events.item_count
    found = dense(fit_similarity(world.events, world.weights, settings), items)
    expected = direct_solution(interactions(world.events, world.weights).toarray(), 20.0)
    np.testing.assert_allclose(found / np.abs(found).max(), expected / np.abs(expected).max(), atol=1e-5)


def test_only_the_strongest_neighbours_are_kept(world: KnownRows) -> None:
    items = world.events.item_count
    whole = dense(fit_similarity(world.events, world.weights, RecallSettings(neighbours=1000)), items)
    cut = dense(fit_similarity(world.events, world.weights, RecallSettings(neighbours=10)), items)
    for row in range(items):
        kept = np.flatnonzero(cut[row])
        assert len(kept) == min(10, np.count_nonzero(whole[row]))
        if len(kept):
            assert np.abs(whole[row][kept]).min() >= np.sort(np.abs(whole[row]))[-len(kept)]


def test_scores_have_unit_spread(world: KnownRows, recall_settings: RecallSettings) -> None:
    similar = fit_similarity(world.events, world.weights, recall_settings)
    spreads = []
    for user in range(world.events.user_count):
        rows = slice(int(world.events.starts[user]), int(world.events.starts[user + 1]))
        weight = world.weights.of(world.events.labels[rows])
        scores = similar.weighted_sum(world.events.items[rows], weight / np.sqrt(weight.sum()), world.events.item_count)
        spreads.append(scores.std())
    assert np.mean(spreads) == pytest.approx(1.0, rel=1e-3)


def test_beyond_the_exact_head_items_still_recommend_their_like(world: KnownRows) -> None:
    settings = RecallSettings(neighbours=30, item_regularization=20.0, exact_items=60)
    items = world.events.item_count
    found = dense(fit_similarity(world.events, world.weights, settings), items)
    tail = np.argsort(world.events.item_events)[: items - 60]
    tail = tail[world.events.item_events[tail] > 3]
    same = np.arange(items)[None, :] % 4 == tail[:, None] % 4
    assert len(tail) > 20
    assert np.abs(found[tail])[same].mean() > 2 * np.abs(found[tail])[~same].mean()
    assert not np.diag(found).any()


def test_an_item_met_twice_counts_once_and_as_the_stronger_event() -> None:
    events = make_events([(0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 1, 0)], users=2, items=3)
    assert interactions(events, HistoryWeights(disliked=0.5)).toarray().tolist() == [[0, 1, 0.5], [0, 0, 0]]


def test_an_impression_that_was_left_alone_connects_nothing() -> None:
    events = make_events([(0, 1, 1), (0, 2, 0), (1, 1, 1), (1, 2, 0)], users=2, items=3)
    found = fit_similarity(events, HistoryWeights(disliked=0.0), RecallSettings())
    assert len(found.values) == 0
