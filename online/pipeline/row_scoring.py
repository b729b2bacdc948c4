"""Scores of the rows of a file, batch by batch: what is held at a time is a few batches and 4 to 8 bytes a row.

While one batch is read, others are scored by a few threads, which release the interpreter's lock for most of their time. The
threads run at a low priority, so that lists are answered first.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import StoreError, TooLarge
from data_exchange_center.scored_rows import graph_inputs
from online.pipeline.row_view import RowView
from online.stores.ports import Scorer

SCORED_AT_ONCE = 2048  # rows; more only cost memory
SCORER_TIMEOUT_S = 10.0  # for that many
WAITING = 8  # parts that are read before the first of them is scored
NICENESS = 10


@dataclass(frozen=True)
class ScoredRows:
    """Rows in the order of their file.

    Attributes:
        scores: float32 [N], probabilities.
        labels: float32 [N]; None when the file has none.
        score_s: seconds of all threads together.
    """

    scores: np.ndarray
    labels: np.ndarray | None
    score_s: float


def row_threads(count: int) -> ThreadPoolExecutor:
    """The threads that `score_rows` takes."""

    def lower() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # on Linux: of this thread alone

    return ThreadPoolExecutor(count, thread_name_prefix="rows", initializer=lower)


def score_rows(
    view: RowView, scorer: Scorer, batches: Iterable[pa.RecordBatch], threads: ThreadPoolExecutor, most_rows: int
) -> ScoredRows:
    """Scores every row.

    Args:
        batches: of one file, in order, each with the label or none of them; read while the threads work.
        most_rows: of all batches together.

    Raises:
        DataError: as `batches` raises, or a column is missing.
        TooLarge: there are more rows.
        StoreError: the scorer is away, or answered something that is no probability.
    """
    waiting: deque[Future[tuple[np.ndarray, float]]] = deque()
    scores, labels, seconds, rows = [], [], 0.0, 0

    def collect() -> float:
        made, spent = waiting.popleft().result()
        scores.append(made)
        return spent

    try:
        for batch in batches:
            rows += len(batch)
            if rows > most_rows:
                raise TooLarge(f"the file holds more than {most_rows} rows (setting serve.upload_max_rows)")
            label = view.schema.label
            if label is not None and label.name in batch.schema.names:
                labels.append(batch[label.name].to_numpy())
            each = -(-len(batch) // -(-len(batch) // SCORED_AT_ONCE)) if len(batch) else 1  # parts of equal size
            for start in range(0, len(batch), each):
                waiting.append(threads.submit(_scored, view, scorer, batch.slice(start, each)))
                if len(waiting) > WAITING:
                    seconds += collect()
        while waiting:
            seconds += collect()
    finally:
        for left in waiting:
            left.cancel()
    return ScoredRows(_joined(scores), _joined(labels) if labels else None, seconds)


def _scored(view: RowView, scorer: Scorer, rows: pa.RecordBatch) -> tuple[np.ndarray, float]:
    """Scores of the rows, float32, and the seconds that they took."""
    started = time.perf_counter()
    inputs = graph_inputs(view.spec, view.form.inputs, rows)
    scores = scorer.score(view.release.id, inputs, SCORER_TIMEOUT_S)[view.form.output]
    if not np.isfinite(scores).all():
        raise StoreError(f"the model of release {view.release.id} gave {scores[~np.isfinite(scores)][0]} for a row")
    return scores, time.perf_counter() - started


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def auc_of(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The probability that a positive row scores above a negative one, ties counted half (Mann and Whitney, 1947).

    Args:
        labels: 0 or 1, [N]. scores: [N].

    Returns:
        None when the rows are all of one class.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # of tied scores: their mean
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
