"""Metrics of ranked lists against values worked out by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from data_exchange_center.list_metrics import list_metrics, ndcg_at, recall_at


def test_a_list_worked_out_by_hand() -> None:
    found = list_metrics([(np.array([7, 3, 9, 1]), np.array([3, 1, 5]))], recall=(2, 4), top=3)
    assert found["r2"] == pytest.approx(1 / 3)
    assert found["r4"] == pytest.approx(2 / 3)
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert found["ndcg3"] == pytest.approx((1 / np.log2(3)) / ideal)
    assert found["hr3"] == 1.0


def test_users_without_positives_do_not_count() -> None:
    found = list_metrics([(np.array([1, 2]), np.array([])), (np.array([1, 2]), np.array([2]))], recall=(1, 2), top=1)
    assert (found["users"], found["r1"], found["r2"], found["hr1"]) == (1, 0.0, 1.0, 0.0)


def test_nobody_gives_zeros() -> None:
    assert list_metrics([])["r50"] == 0.0


@given(st.lists(st.booleans(), min_size=2, max_size=30).filter(any), st.integers(1, 40))
def test_ndcg_is_that_of_scikit_learn(hits: list[bool], k: int) -> None:
    relevance = np.array(hits, float)
    scores = -np.arange(len(hits), dtype=float)
    expected = ndcg_score(relevance[None], scores[None], k=k)
    assert ndcg_at(np.array(hits), sum(hits), k) == pytest.approx(expected)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1), st.integers(1, 11))
def test_recall_grows_with_the_cut_and_ends_at_one(order: list[int], relevant: set[int], k: int) -> None:
    hits = np.isin(np.array(order), list(relevant))
    assert recall_at(hits, len(relevant), k) <= recall_at(hits, len(relevant), k + 1)
    assert recall_at(hits, len(relevant), 12) == 1.0
