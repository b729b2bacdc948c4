"""What a stream teaches does not depend on how it is cut, and equals what numpy says of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offline.rank import stream_statistics
from offline.rank.stream_statistics import Moments, Quantiles, fold_of

NUMBERS = st.floats(-1e6, 1e6, width=32).map(lambda value: round(value, 1))
CUTS = st.lists(st.integers(0, 60), max_size=4).map(sorted)


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=NUMBERS), CUTS, st.integers(2, 12))
@settings(max_examples=150, deadline=None)
def test_edges_are_quantiles_that_occurred_and_leave_no_bin_empty(
    values: np.ndarray, cuts: list[int], bins: int
) -> None:
    quantiles = Quantiles()
    for part, places in zip(np.split(values, cuts), np.split(np.arange(len(values)), cuts), strict=True):
        quantiles.add(part, places)
    wanted = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    assert quantiles.edges(bins) == tuple(float(edge) for edge in np.unique(wanted) if edge > values.min())
    filled = np.bincount(np.searchsorted(quantiles.edges(bins), values, side="right"))
    assert filled.min() > 0


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=NUMBERS), CUTS)
@settings(max_examples=100, deadline=None)
def test_moments_equal_those_of_the_whole(values: np.ndarray, cuts: list[int]) -> None:
    moments = Moments()
    for part in np.split(values, cuts):
        moments.add(part)
    statistics, whole = moments.statistics(1), values.astype(np.float64)
    assert statistics.mean[0] == pytest.approx(whole.mean(), rel=1e-12, abs=1e-9)
    deviation = whole.std() if whole.std() >= stream_statistics.SMALLEST_DEVIATION else 1.0
    assert statistics.deviation[0] == pytest.approx(deviation, rel=1e-9)


def test_quantiles_of_too_many_values_come_from_a_sample_that_batches_do_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_statistics, "EXACT_VALUES", 1000)
    monkeypatch.setattr(stream_statistics, "SAMPLE_ROWS", 10_000)
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    edges = []
    for size in (100_000, 7_001):
        quantiles = Quantiles()
        for start in range(0, len(values), size):
            part = values[start : start + size]
            quantiles.add(part, np.arange(start, start + len(part)))
        edges.append(quantiles.edges(10))
    assert edges[0] == edges[1]
    ranks = [(values < edge).mean() for edge in edges[0]]
    assert ranks == pytest.approx(np.arange(1, 10) / 10, abs=4 * 0.5 / np.sqrt(10_000))


def test_folds_are_even_and_stay_what_they_are() -> None:
    folds = fold_of(np.arange(100_000), 5)
    assert np.bincount(folds) == pytest.approx(np.full(5, 20_000), rel=0.03)
    assert fold_of(np.arange(8), 5).tolist() == GOLDEN


GOLDEN = [0, 0, 0, 3, 3, 3, 2, 2]
