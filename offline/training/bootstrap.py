"""Bootstrap intervals of AUC and logloss, and paired ones of the difference of two models on the same rows.

Rows are resampled with replacement (percentile intervals, Efron 1979). All models of a comparison are measured on the same
resamples, so that the difference of two does not carry the luck of the rows they share. A model trained over several seeds counts
as the mean of its seeds' values within each resample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from offline.training.metrics import CLIP

RESAMPLES = 1000
CELLS = 1 << 21  # weights held at a time
LEVEL = 0.95

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval.

    Attributes:
        value: on the rows as they are. low, high: bounds of the interval.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def resamples(rows: int, count: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each row is drawn, float64 [chunk, rows] at a time; the same arguments give the same draws."""
    generator = np.random.default_rng(seed)
    chunk = max(1, min(count, CELLS // max(rows, 1)))
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        drawn = generator.integers(0, rows, (size, rows))
        drawn += np.arange(size)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def auc_statistic(labels: np.ndarray, scores: np.ndarray) -> Statistic:
    """Weights [chunk, rows] -> AUC [chunk]; scores are sorted once, and one running sum per resample serves all positives. NaN for
    a resample of one class."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    positives = np.flatnonzero(labels[order] > 0.5)
    first, last = (np.searchsorted(ordered, ordered[positives], side=side) for side in ("left", "right"))

    def statistic(weights: np.ndarray) -> np.ndarray:
        taken = weights[:, order]
        won_by = taken[:, positives]
        taken[:, positives] = 0
        negatives = np.zeros((len(taken), taken.shape[1] + 1))  # with scores below each place
        np.cumsum(taken, axis=1, out=negatives[:, 1:])
        won = (won_by * (negatives[:, first] + negatives[:, last])).sum(1) / 2  # a tie counts half
        pairs = negatives[:, -1] * won_by.sum(1)
        return np.divide(won, pairs, out=np.full(len(taken), np.nan), where=pairs > 0)

    return statistic


def logloss_statistic(labels: np.ndarray, probabilities: np.ndarray) -> Statistic:
    """Weights [chunk, rows] -> logloss [chunk]."""
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    losses = -np.log(np.where(labels > 0.5, clipped, 1 - clipped))
    return lambda weights: weights @ losses / weights.sum(1)


def bootstrapped(statistics: Sequence[Statistic], rows: int, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Every statistic on the rows as they are (first column) and on the same resamples: [statistics, 1 + count]."""
    parts = [np.stack([statistic(np.ones((1, rows))) for statistic in statistics])]
    parts += [np.stack([statistic(weights) for statistic in statistics]) for weights in resamples(rows, count, seed)]
    return np.concatenate(parts, axis=1)


def interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Percentile interval of one row of `bootstrapped`."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Interval(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values[0]), float(low), float(high))


def paired(values: np.ndarray, others: np.ndarray, level: float = LEVEL) -> Interval:
    """Interval of a statistic minus another's, both on the same resamples."""
    return interval(values - others, level)
