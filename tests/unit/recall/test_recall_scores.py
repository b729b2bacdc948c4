"""Recall scores from arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from data_exchange_center import recall_scores
from data_exchange_center.candidates import CHANNELS, feature_of
from data_exchange_center.errors import DataError
from data_exchange_center.recall_parts import HistoryWeights, Sparse, VectorArrays
from data_exchange_center.recall_scores import NOBODY, RecallArrays, UserTaste, top_rows

ITEMS, USERS, SIZE = 30, 5, 4


def random_sparse(rows: int, random: np.random.Generator) -> Sparse:
    matrix = sparse.random(rows, ITEMS, 0.3, "csr", np.float32, random)
    matrix.sort_indices()
    return Sparse(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


def make_arrays(seed: int = 0) -> RecallArrays:
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    vectors = VectorArrays(
        item_vectors=np.column_stack((normal(ITEMS, SIZE + 1), np.ones(ITEMS, np.float32))),
        user_vectors=normal(USERS, SIZE + 2),
        history_vectors=normal(ITEMS, SIZE),
        newcomer_vector=normal(SIZE),
        normaliser_rows=np.arange(ITEMS, dtype=np.int32),
        normaliser_offsets=np.zeros(ITEMS, np.float32),
    )
    return RecallArrays(
        vectors, random_sparse(ITEMS, random), random_sparse(3, random), normal(2, ITEMS), ("a", "b", "c"), ("", "x")
    )


def make_taste(arrays: RecallArrays) -> UserTaste:
    return UserTaste(
        vector=arrays.vectors.user_vectors[1],
        terms=("c", "unheard of", "a"),
        term_weights=np.array([0.5, 9.0, 2.0], np.float32),
        history=np.array([3, 7, 3, 21], np.int32),
        history_labels=np.array([1, 0, 1, 1], np.int8),
        history_values=np.array([5, 2, 4, 4], np.float32),
        segment="x",
    )


def dense(matrix: Sparse, rows: int) -> np.ndarray:
    return sparse.csr_matrix((matrix.values, matrix.indices, matrix.indptr), (rows, ITEMS)).toarray()


def test_every_score_equals_its_definition() -> None:
    arrays = make_arrays()
    taste = make_taste(arrays)
    rows = np.array([21, 0, 5], np.int32)
    weight = np.array([1 + 4 * np.exp(-3 / 8), 0.5 * (1 + 4 * np.exp(-2 / 8)), 1 + 4 * np.exp(-1 / 8), 5.0])
    similar, strength = dense(arrays.similar, ITEMS), dense(arrays.strength, 3)
    expected = {
        "recall_vector": arrays.vectors.item_vectors @ taste.vector,
        "recall_item": weight @ similar[taste.history] / np.sqrt(weight.sum()),
        "recall_term": 0.5 * strength[2] + 2.0 * strength[0],
        "recall_popularity": arrays.popularity[1],
    }
    found = arrays.scores(taste, rows)
    assert list(found) == list(expected) == list(arrays.names)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values[rows], rtol=1e-5, atol=1e-6)


def test_a_score_does_not_depend_on_what_else_is_asked() -> None:
    arrays = make_arrays()
    taste = make_taste(arrays)
    together = arrays.scores(taste, np.arange(ITEMS, dtype=np.int32))
    for row in range(ITEMS):
        alone = arrays.scores(taste, np.array([row], np.int32))
        assert all(alone[name][0] == together[name][row] for name in together)


def test_neighbour_lists_give_what_the_dense_form_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = make_arrays()
    in_memory = arrays.item_scores(make_taste(arrays))
    monkeypatch.setattr(recall_scores, "DENSE_ITEMS", 0)
    np.testing.assert_allclose(make_arrays().item_scores(make_taste(arrays)), in_memory, rtol=1e-5, atol=1e-6)


def test_nobody_scores_zero_but_for_popularity() -> None:
    found = make_arrays().scores(NOBODY, np.arange(ITEMS, dtype=np.int32))
    assert all((found[feature_of(channel)] == 0).all() for channel in CHANNELS if channel != "popularity")
    assert (found["recall_popularity"] == make_arrays().popularity[0]).all()


def test_an_unknown_segment_is_the_global_one() -> None:
    assert make_arrays().segment_number("never seen") == 0


def test_a_newcomer_gets_a_vector_from_the_history() -> None:
    arrays = make_arrays()
    newcomer = dataclasses.replace(make_taste(arrays), vector=np.empty(0, np.float32))
    weights = HistoryWeights().of(newcomer.history_labels)
    embedding = (
        arrays.vectors.newcomer_vector
        + weights @ arrays.vectors.history_vectors[newcomer.history] / weights.sum() ** 0.6
    )
    vector = arrays.vector_of(newcomer)
    np.testing.assert_allclose(vector[:SIZE], embedding, rtol=1e-5)
    # log of (probability x items) over the catalog: the probabilities add up to one
    assert np.exp(arrays.vector_scores(newcomer)).mean() == pytest.approx(1.0, rel=1e-5)


def test_a_history_that_weighs_nothing_scores_zero() -> None:
    arrays = dataclasses.replace(make_arrays(), history=HistoryWeights(disliked=0.0))
    taste = dataclasses.replace(make_taste(arrays), history_labels=np.zeros(4, np.int8))
    assert not arrays.item_scores(taste).any()


def test_only_the_newest_events_of_a_history_count() -> None:
    arrays = dataclasses.replace(make_arrays(), history=HistoryWeights(limit=2))
    taste = make_taste(arrays)
    recent = dataclasses.replace(taste, history=taste.history[-2:], history_labels=taste.history_labels[-2:])
    assert (arrays.item_scores(taste) == arrays.item_scores(recent)).all()


def test_newer_and_liked_events_weigh_more() -> None:
    weights = HistoryWeights().of(np.array([1, 1, 0, 0], np.int8))
    assert weights[1] > weights[0] > weights[2] > 0
    assert weights[3] > weights[2]


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    arrays = dataclasses.replace(make_arrays(), weights={"vector": 1.0, "item": 0.5, "term": 0.0, "popularity": 0.0})
    arrays.save(tmp_path)
    again = RecallArrays.load(tmp_path)
    assert (again.terms, again.segments, again.weights, again.history) == (
        arrays.terms,
        arrays.segments,
        arrays.weights,
        arrays.history,
    )
    rows = np.arange(ITEMS, dtype=np.int32)
    taste = make_taste(arrays)
    for name, values in arrays.scores(taste, rows).items():
        assert (again.scores(taste, rows)[name] == values).all()


@pytest.mark.parametrize("name", ["item_vectors.npy", "popularity.npy", "term_values.npy", "recall.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    make_arrays().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name):
        RecallArrays.load(tmp_path)


@pytest.mark.parametrize("name", ["item_vectors.npy", "item_indices.npy", "user_vectors.npy", "history_vectors.npy"])
def test_arrays_of_another_size_are_refused(tmp_path: Path, name: str) -> None:
    make_arrays().save(tmp_path)
    array = np.load(tmp_path / name)
    np.save(tmp_path / name, array[:-1] if array.ndim == 1 else array[:-1, :-1])
    with pytest.raises(DataError, match=str(tmp_path)):
        RecallArrays.load(tmp_path)


def test_popular_orders_are_best_first_with_ties_by_row() -> None:
    arrays = dataclasses.replace(make_arrays(), popularity=np.array([[1, 3, 3, 2]], np.float32), segments=("",))
    assert arrays.popular_orders.tolist() == [[1, 2, 3, 0]]


def test_top_rows_leave_out_what_is_not_eligible() -> None:
    scores = np.array([5, 4, 3, 2], np.float32)
    assert top_rows(scores, np.array([False, True, False, True]), 3).tolist() == [1, 3]
