"""Bootstrap: statistics on weights equal those on repeated rows; intervals cover and shrink when paired."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.training.bootstrap import auc_statistic, bootstrapped, interval, logloss_statistic, paired, resamples
from offline.training.metrics import auc, logloss


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40))
def test_a_weight_is_that_many_copies_of_the_row(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    probabilities = scores / 7 + 0.1
    copies = np.repeat(np.arange(len(rows)), weights)
    if not len(copies):
        return
    made = auc_statistic(labels, probabilities)(weights[None].astype(float))[0]
    exact = auc(labels[copies], probabilities[copies])
    assert made == pytest.approx(exact) or (math.isnan(made) and math.isnan(exact))
    loss = logloss_statistic(labels, probabilities)(weights[None].astype(float))[0]
    assert loss == pytest.approx(logloss(labels[copies], probabilities[copies]))


def test_each_resample_draws_as_many_rows_as_there_are() -> None:
    drawn = np.concatenate(list(resamples(300, 50, seed=1)))
    assert drawn.shape == (50, 300) and (drawn.sum(1) == 300).all()
    assert np.array_equal(drawn, np.concatenate(list(resamples(300, 50, seed=1))))


def test_the_interval_is_as_wide_as_theory_says() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 4000)
    statistic = logloss_statistic(labels, np.full(4000, 0.3))
    losses = -np.log(np.where(labels == 1, 0.3, 0.7))
    made = interval(bootstrapped([statistic], 4000)[0])
    expected = 1.96 * losses.std() / np.sqrt(4000)
    assert made.value == pytest.approx(losses.mean())
    assert (made.high - made.low) / 2 == pytest.approx(expected, rel=0.1)


def test_a_pair_is_compared_more_finely_than_two_intervals() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 3000)
    first = labels + random.normal(0, 2, 3000)
    second = first + random.normal(0, 0.2, 3000)
    one, other = bootstrapped([auc_statistic(labels, first), auc_statistic(labels, second)], 3000, 400)
    alone, difference = interval(one), paired(one, other)
    assert difference.high - difference.low < (alone.high - alone.low) / 3
    assert paired(one, one).low == paired(one, one).high == 0.0


def test_one_class_has_no_auc() -> None:
    made = interval(bootstrapped([auc_statistic(np.ones(5), np.arange(5.0))], 5, 20)[0])
    assert math.isnan(made.value) and math.isnan(made.low)
