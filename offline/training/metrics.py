"""How good probabilities and orders are: AUC, GAUC, logloss, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

CLIP = 1e-7  # probabilities are kept this far from 0 and 1 before the logarithm


@dataclass(frozen=True)
class Gauc:
    """AUC per user, averaged with the users' rows as weights.

    A user whose rows are all of one class has no AUC; such users are left out and counted, never given 0.5, which would pull
    the average towards chance by an amount that depends on the data and not on the model.

    Attributes:
        value: NaN when no user has both classes.
        users: that count. skipped: left out. rows: of the users that count.
    """

    value: float
    users: int
    skipped: int
    rows: int


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve; NaN when there is only one class."""
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else float("nan")


def gauc(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Gauc:
    """Grouped AUC.

    Args:
        users: [rows], any integer that tells users apart. labels: [rows], 0 or 1. scores: [rows].
    """
    order = np.lexsort((scores, users))
    users, labels, scores = users[order], labels[order].astype(np.float64), scores[order]
    if not len(users):
        return Gauc(float("nan"), 0, 0, 0)
    first = np.r_[True, users[1:] != users[:-1]]
    user = np.cumsum(first) - 1
    place = np.arange(len(users)) - np.flatnonzero(first)[user]
    tie_first = first | np.r_[True, scores[1:] != scores[:-1]]
    tie = np.cumsum(tie_first) - 1
    ranks = (np.bincount(tie, weights=place) / np.bincount(tie))[tie] + 1.0  # equal scores share their mean rank
    rows, positives = np.bincount(user), np.bincount(user, weights=labels)
    rank_sum = np.bincount(user, weights=ranks * labels)
    both = (positives > 0) & (positives < rows)
    pairs = positives[both] * (rows[both] - positives[both])
    values = (rank_sum[both] - positives[both] * (positives[both] + 1) / 2) / pairs
    value = float(np.average(values, weights=rows[both])) if both.any() else float("nan")
    return Gauc(value, int(both.sum()), int((~both).sum()), int(rows[both].sum()))


def logloss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log likelihood, natural logarithm."""
    return float(log_loss(labels, np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP), labels=[0, 1]))


def calibration_curve(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> list[dict[str, float]]:
    """Observed against predicted share of positives, in bins of equally many rows.

    Returns:
        Per bin, ascending: `predicted` and `observed` means and `rows`.
    """
    curve = []
    for part in np.array_split(np.argsort(probabilities, kind="stable"), bins):
        if len(part):
            predicted, observed = probabilities[part].mean(dtype=np.float64), labels[part].mean(dtype=np.float64)
            curve.append({"predicted": float(predicted), "observed": float(observed), "rows": len(part)})
    return curve


def expected_calibration_error(curve: list[dict[str, float]]) -> float:
    """Mean absolute gap of a calibration curve, weighted by rows."""
    rows = sum(point["rows"] for point in curve)
    return sum(abs(point["predicted"] - point["observed"]) * point["rows"] for point in curve) / max(rows, 1)


def click_metrics(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float]:
    """All numbers of one set of rows.

    Args:
        labels, probabilities: [rows]. groups: [rows], integers that tell users (or whatever groups rows) apart; adds GAUC.
    """
    measured = {
        "auc": auc(labels, probabilities),
        "logloss": logloss(labels, probabilities),
        "calibration_error": expected_calibration_error(calibration_curve(labels, probabilities)),
        "rows": len(labels),
    }
    if groups is not None:
        grouped = gauc(groups, labels, probabilities)
        measured |= {"gauc": grouped.value, "gauc_users": grouped.users, "gauc_users_skipped": grouped.skipped}
    return measured


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers that JSON can hold: None for what could not be measured."""
    return {name: plain(value) for name, value in metrics.items()}


def plain(value: float) -> float | None:
    """The number, or None when it is none."""
    return value if np.isfinite(value) else None
