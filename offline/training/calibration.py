"""Platt scaling: a slope and an offset that turn a logit into a probability that comes true as often as it says."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

LEAST_SLOPE = 0.05  # calibration never turns an order around


def platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fits (slope, offset) by maximum likelihood on rows that the network has not learned from.

    With one class only there is nothing to fit: (1, 0).
    """
    if not 0 < labels.sum() < len(labels):
        return 1.0, 0.0
    fitted = LogisticRegression(C=1e6).fit(logits.astype(np.float64)[:, None], labels.astype(np.int64))
    return max(float(fitted.coef_[0, 0]), LEAST_SLOPE), float(fitted.intercept_[0])
