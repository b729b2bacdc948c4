"""The streaming AUC is never further from the exact one than it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError
from offline.training.metrics import auc
from offline.training.streaming_auc import StreamingAuc

SCORES = st.floats(-40, 40, width=32) | st.sampled_from([0.0, 1.0, -16.0, 16.0, 1e30, -1e30])


def streamed(labels: np.ndarray, scores: np.ndarray, **options: float) -> StreamingAuc:
    made = StreamingAuc(**options)  # type: ignore[arg-type]
    made.update(torch.from_numpy(labels), torch.from_numpy(scores))
    return made


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=2, max_size=80), st.sampled_from([1, 2, 7, 64, 65536]))
def test_the_exact_auc_lies_within_the_bound(rows: list[tuple[int, float]], bins: int) -> None:
    labels = np.array([label for label, _ in rows], np.float32)
    scores = np.array([score for _, score in rows], np.float32)
    made = streamed(labels, scores, bins=bins).result()
    exact = auc(labels, scores)
    if math.isnan(exact):
        assert math.isnan(made.value)
    else:
        assert abs(made.value - exact) <= made.bound + 1e-12


def test_many_bins_are_close_on_many_rows() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(-3, 1, 100_000).astype(np.float32)
    labels = (random.random(100_000) < 1 / (1 + np.exp(-scores))).astype(np.float32)
    made = streamed(labels, scores).result()
    assert made.bound < 2e-4 and abs(made.value - auc(labels, scores)) <= made.bound


def test_probabilities_have_a_range_of_their_own() -> None:
    labels, scores = np.array([0, 1, 0, 1], np.float32), np.array([0.1, 0.2, 0.3, 0.9], np.float32)
    assert streamed(labels, scores, low=0.0, high=1.0).result().value == 0.75


def test_parts_merge_to_the_whole() -> None:
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 500).astype(np.float32), random.normal(size=500).astype(np.float32)
    whole, part = streamed(labels, scores), streamed(labels[:200], scores[:200])
    part.merge(streamed(labels[200:], scores[200:]))
    assert torch.equal(part.counts, whole.counts)
    with pytest.raises(DataError, match="bins"):
        part.merge(StreamingAuc(bins=3))


def test_a_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(DataError, match="not a number"):
        streamed(np.array([1.0, 0.0]), np.array([np.nan, 0.5]))
