"""AUC in constant memory: histograms of the scores of positives and negatives, with a bound on the error.

Scores are put into bins by a function that never decreases, so a pair of a positive and a negative that lie in different bins is
counted exactly as the exact AUC counts it. A pair within one bin counts 1, 1/2 or 0 there and 1/2 here. The error is therefore at
most half the share of pairs that lie within one bin, which the histograms themselves tell:

    |exact - value| <= bound = sum over bins of positives * negatives / (2 * all positives * all negatives)

Histograms of parts of the data (of ranks, of files) add up to the histogram of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data_exchange_center.errors import DataError

BINS = 1 << 16


@dataclass(frozen=True)
class StreamedAuc:
    """Attributes:
    value: NaN with one class only. bound: what `value` is at most away from the exact AUC.
    """

    value: float
    bound: float


class StreamingAuc:
    """Counts scores as they come.

    Args:
        low, high: of the scores; those outside fall into the outermost bins. The default suits logits; 0 and 1 probabilities.
        bins: more make the bound smaller.

    Example:
        streaming = StreamingAuc()
        streaming.update(labels, logits)
        streaming.result()  # StreamedAuc(value=0.7312, bound=0.0001)
    """

    def __init__(self, low: float = -16.0, high: float = 16.0, bins: int = BINS) -> None:
        self.low, self.high, self.bins = low, high, bins
        self.counts = torch.zeros(2, bins, dtype=torch.int64)  # of negatives and of positives

    def update(self, labels: Tensor, scores: Tensor) -> None:
        """Adds rows.

        Args:
            labels: [B], 0 or 1. scores: float [B].

        Raises:
            DataError: a score is not a number.
        """
        scaled = (scores.detach().float() - self.low) * (self.bins / (self.high - self.low))
        if torch.isnan(scaled).any():
            raise DataError("a score is not a number: the training diverged, or an input is NaN")
        place = scaled.clamp_(0, self.bins - 1).long()
        flat = place + (labels > 0.5).long() * self.bins
        self.counts += torch.bincount(flat, minlength=2 * self.bins).view(2, self.bins).to(self.counts.device)

    def merge(self, other: StreamingAuc) -> None:
        """Adds the rows that another one counted; its bins must be the same."""
        if (self.low, self.high, self.bins) != (other.low, other.high, other.bins):
            raise DataError("only histograms with the same bins can be merged")
        self.counts += other.counts

    def reset(self) -> None:
        """Forgets all rows."""
        self.counts.zero_()

    def result(self) -> StreamedAuc:
        """The AUC of all rows so far, and its error bound."""
        negatives, positives = self.counts.double()
        pairs = float(negatives.sum() * positives.sum())
        if pairs == 0:
            return StreamedAuc(float("nan"), float("nan"))
        below = negatives.cumsum(0) - negatives
        within = float((positives * negatives).sum())
        return StreamedAuc((float((positives * below).sum()) + 0.5 * within) / pairs, 0.5 * within / pairs)
