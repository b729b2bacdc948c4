"""From scores to an order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from online.pipeline.rerank import by_score, diversified

scores = st.lists(st.floats(0, 1, width=32), max_size=60).map(lambda values: np.array(values, np.float32))


@given(scores, st.floats(0, 1, width=32))
def test_scores_descend_and_reach_the_threshold(score: np.ndarray, least: float) -> None:
    order = by_score(score, least)
    kept = score[order]
    assert (np.diff(kept) <= 0).all()
    assert set(order) == set(np.flatnonzero(score >= np.float32(least)))


def test_equal_scores_keep_the_order_they_came_in() -> None:
    assert by_score(np.array([0.5, 0.7, 0.5, 0.7], np.float32)).tolist() == [1, 3, 0, 2]


@given(scores, st.floats(0, 1), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_diversity_chooses_each_candidate_at_most_once(
    score: np.ndarray, diversity: float, size: int, seed: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(score), 4)).astype(np.float32)
    order = by_score(score)
    chosen = diversified(order, score, vectors, diversity, size)
    assert len(chosen) == min(size, len(order))
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(chosen) <= set(order)


@given(scores, st.integers(1, 70))
def test_no_diversity_keeps_the_order(score: np.ndarray, size: int) -> None:
    vectors = np.ones((len(score), 3), np.float32)
    order = by_score(score)
    assert diversified(order, score, vectors, 0.0, size).tolist() == order[:size].tolist()


def test_diversity_prefers_the_unlike_item() -> None:
    score = np.array([0.9, 0.89, 0.8], np.float32)
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert diversified(by_score(score), score, vectors, 0.5, 2).tolist() == [0, 2]


def test_an_item_without_a_vector_is_like_no_other() -> None:
    score = np.array([0.9, 0.8, 0.7], np.float32)
    vectors = np.array([[1, 0], [1, 0], [0, 0]], np.float32)
    assert diversified(by_score(score), score, vectors, 0.9, 2).tolist() == [0, 2]
