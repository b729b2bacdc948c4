"""How well the live model fits a day that it has not seen, and whether that can be chance.

Labels that went wrong (flipped, late, of a broken join) spoil a day's validation rows as well as its training rows: a candidate
that learned the fault looks fine there, and symmetric noise hardly changes the order that it gives to clean rows. What such labels
cannot do is agree with the live model as those of other days did. So a day's rows, all of them unseen by the live model, are
compared with the last good days: the live model's AUC must not be lower, nor its logloss higher, than theirs by more than

    deviations * sqrt(day's sampling variance + variance of their mean + spread between days)

The spread between good days is estimated from them (their variance beyond sampling) and never taken for smaller than a floor,
so that few or very even days do not make an ordinary one suspicious. Drift moves a day by a fraction of that; a model that was
held back for some days loses slowly, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from data_exchange_center.settings import IncrementalSettings
from offline.incremental.findings import Finding
from offline.training.metrics import CLIP


@dataclass(frozen=True)
class Measured:
    """A mean and its standard error by sampling."""

    value: float
    error: float


@dataclass(frozen=True)
class DayFit:
    """What the live model said about one day before it learned from it.

    Attributes:
        date: YYYY-MM-DD. rows: of the day, training and validation.
        auc, logloss: of the live model.
    """

    date: str
    rows: int
    auc: Measured
    logloss: Measured


def fit_of(date: str, labels: np.ndarray, probabilities: np.ndarray) -> DayFit:
    """Measures one day: labels 0 or 1 and probabilities, [rows] each."""
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    losses = -np.log(np.where(labels > 0.5, clipped, 1 - clipped))
    error = float(losses.std(ddof=1) / math.sqrt(len(losses))) if len(losses) > 1 else math.inf
    return DayFit(date, len(labels), auc_with_error(labels, probabilities), Measured(float(losses.mean()), error))


def auc_with_error(labels: np.ndarray, scores: np.ndarray) -> Measured:
    """AUC with the standard error of DeLong et al. (1988), by the midranks of Sun and Xu (2014); NaN for one class."""
    positive = labels > 0.5
    wins, losses = scores[positive], scores[~positive]
    m, n = len(wins), len(losses)
    if not (m and n):
        return Measured(math.nan, math.inf)
    together = rankdata(np.concatenate([wins, losses]))
    won = (together[:m] - rankdata(wins)) / n  # share of the negatives below each positive
    lost = 1 - (together[m:] - rankdata(losses)) / m
    variance = (won.var(ddof=1) / m if m > 1 else math.inf) + (lost.var(ddof=1) / n if n > 1 else math.inf)
    return Measured(float(won.mean()), math.sqrt(variance))


def unlike_the_others(day: DayFit, others: Sequence[DayFit], settings: IncrementalSettings) -> list[Finding]:
    """Whether the day's labels are too far from what the live model expects, by AUC and by logloss.

    Args:
        day: of the live model. others: the last good days, any order; without one nothing can be said.

    Returns:
        A finding per measure; `value` is how many deviations the day is worse than the others.
    """
    recent = sorted(others, key=lambda one: one.date)[-settings.compared_days :]
    limit = settings.suspicious_deviations
    return [
        _finding("auc", day.auc, [one.auc for one in recent], -1, limit, settings.spread_between_days),
        _finding("logloss", day.logloss, [one.logloss for one in recent], 1, limit, settings.spread_between_days),
    ]


def _finding(name: str, day: Measured, others: Sequence[Measured], worse: int, limit: float, floor: float) -> Finding:
    known = [one for one in others if math.isfinite(one.value) and math.isfinite(one.error)]
    label = f"{name} of the live model on the day"
    if not known or not math.isfinite(day.value) or not math.isfinite(day.error):
        return Finding(label, True, None, limit=limit, note="nothing to compare with")
    values, errors = np.array([one.value for one in known]), np.array([one.error for one in known])
    beyond = values.var(ddof=1) - (errors**2).mean() if len(values) > 1 else 0.0
    spread = max(beyond, floor**2)
    expected = float(values.mean())
    deviation = math.sqrt(day.error**2 + (errors**2).sum() / len(values) ** 2 + spread * (1 + 1 / len(values)))
    deviations = worse * (day.value - expected) / deviation
    note = f"{day.value:.4f} where {len(values)} good days had {expected:.4f}, deviation {deviation:.4f}"
    return Finding(label, deviations <= limit, deviations, limit=limit, note=note)
