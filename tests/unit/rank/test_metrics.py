"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from offline.training.calibration import platt
from offline.training.metrics import auc, calibration_curve, expected_calibration_error, gauc, logloss


def test_gauc_by_hand_skips_and_counts_users_of_one_class() -> None:
    users = np.array([1, 1, 1, 2, 2, 3, 3])
    labels = np.array([1, 0, 0, 1, 0, 1, 1])
    scores = np.array([0.5, 0.9, 0.1, 0.8, 0.2, 0.3, 0.4])
    made = gauc(users, labels, scores)
    # user 1: one of two pairs in order, .5 with 3 rows; user 2: 1 with 2 rows; user 3 has no negative
    assert made.value == pytest.approx((0.5 * 3 + 1.0 * 2) / 5)
    assert (made.users, made.skipped, made.rows) == (2, 1, 5)


def test_equal_scores_count_half() -> None:
    assert gauc(np.zeros(2, int), np.array([0, 1]), np.array([0.4, 0.4])).value == 0.5


def test_gauc_without_any_comparison_is_not_a_number() -> None:
    assert math.isnan(gauc(np.array([1, 2]), np.array([1, 0]), np.array([0.1, 0.2])).value)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=60))
def test_gauc_is_the_weighted_mean_of_each_users_auc(rows: list[tuple[int, int, int]]) -> None:
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    values, weights = [], []
    for user in np.unique(users):
        mine = users == user
        if 0 < labels[mine].sum() < mine.sum():
            values.append(roc_auc_score(labels[mine], scores[mine]))
            weights.append(mine.sum())
    made = gauc(users, labels, scores.astype(np.float32)).value
    assert made == pytest.approx(np.average(values, weights=weights)) if values else math.isnan(made)


def test_auc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(auc(np.ones(3), np.array([0.1, 0.2, 0.3])))


def test_logloss_of_a_sure_mistake_is_finite() -> None:
    assert logloss(np.array([1.0, 0.0]), np.array([0.0, 0.0])) == pytest.approx(-math.log(1e-7) / 2, rel=1e-3)


def test_the_calibration_curve_compares_means_of_equal_bins() -> None:
    curve = calibration_curve(np.array([0, 1, 1, 1]), np.array([0.1, 0.3, 0.8, 0.6]), bins=2)
    assert [(point["predicted"], point["observed"], point["rows"]) for point in curve] == [
        (pytest.approx(0.2), 0.5, 2),
        (pytest.approx(0.7), 1.0, 2),
    ]
    assert expected_calibration_error(curve) == pytest.approx(0.3)


def test_platt_scaling_finds_the_slope_and_offset_that_made_the_labels() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 40_000).astype(np.float32)
    labels = random.random(40_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    slope, offset = platt(logits, labels.astype(np.float32))
    assert slope == pytest.approx(0.5, abs=0.03) and offset == pytest.approx(-1, abs=0.05)


def test_platt_scaling_never_turns_an_order_around() -> None:
    assert platt(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 0.0, 0.0]))[0] > 0
    assert platt(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == (1.0, 0.0)
