"""The merge rule."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_exchange_center.candidates import CHANNELS, best, feature_of, merge, merged_scores, union

CATALOG = 40
scores_of_catalog = st.lists(st.integers(-3, 3), min_size=CATALOG, max_size=CATALOG).map(
    lambda x: np.array(x, np.float32)
)
lists_of_rows = st.lists(
    st.lists(st.integers(0, CATALOG - 1), unique=True).map(lambda x: np.array(x, np.int32)), min_size=1, max_size=4
)


@given(scores_of_catalog, st.integers(0, CATALOG + 5))
def test_best_is_the_head_of_the_full_sort(scores: np.ndarray, size: int) -> None:
    rows = np.random.default_rng(0).permutation(CATALOG).astype(np.int32)
    expected = sorted(range(CATALOG), key=lambda place: (-scores[place], rows[place]))[:size]
    assert best(rows, scores, size).tolist() == expected


@given(lists_of_rows)
def test_union_holds_every_found_item_once(found: list[np.ndarray]) -> None:
    assert union(found).tolist() == sorted({row for rows in found for row in rows.tolist()})


def test_union_of_nothing_is_empty() -> None:
    assert union([]).dtype == np.int32
    assert len(union([])) == 0


@given(lists_of_rows, st.lists(scores_of_catalog, min_size=4, max_size=4), st.integers(1, CATALOG))
def test_merged_list_does_not_depend_on_who_found_what_first(
    found: list[np.ndarray], tables: list[np.ndarray], size: int
) -> None:
    scores = {feature_of(channel): table for channel, table in zip(CHANNELS, tables, strict=True)}
    weights = {"vector": 1.0, "item": 0.5, "term": 0.25, "popularity": 2.0}
    rows, merged = merge(found, scores, weights, size)
    again, _ = merge([part[::-1] for part in reversed(found)], scores, weights, size)
    assert rows.tolist() == again.tolist()
    assert len(rows) == min(size, len(union(found))) == len(set(rows.tolist()))
    assert (np.diff(merged) <= 0).all()


@given(lists_of_rows, scores_of_catalog, st.integers(1, CATALOG))
def test_a_shorter_cut_is_the_head_of_a_longer_one(found: list[np.ndarray], table: np.ndarray, size: int) -> None:
    scores = {feature_of(channel): table for channel in CHANNELS}
    longer = merge(found, scores, {"vector": 1.0}, size + 3)[0]
    assert merge(found, scores, {"vector": 1.0}, size)[0].tolist() == longer[:size].tolist()


def test_merged_score_is_the_weighted_sum_in_float32() -> None:
    scores = {
        feature_of(channel): np.array([value], np.float32)
        for channel, value in zip(CHANNELS, (1, 2, 3, 4), strict=True)
    }
    merged = merged_scores(scores, {"vector": 1.0, "item": 10.0, "popularity": 0.5})
    assert merged.dtype == np.float32
    assert merged.tolist() == [23.0]
