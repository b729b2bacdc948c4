"""The merge rule: what the channels found becomes one list, cut to size. Defined once, for training, serving and evaluation.

Every candidate gets the score of every channel, whichever found it (`recall_scores.py`), and the merged score is their
weighted sum; the weights are learned on an inner split and travel with the release. Everything is float32 and ties go to the
smaller item row, so that the same candidates come out in the same order wherever the rule runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

CHANNELS = ("vector", "item", "term", "popularity")
DEFAULT_WEIGHTS: Mapping[str, float] = {"vector": 1.0, "item": 1.0, "term": 0.0, "popularity": 0.1}
"""Where nothing was learned. Item, term and popularity scores have unit spread over a catalog, log-odds about two."""


def feature_of(channel: str) -> str:
    """The name under which a channel's score enters tables and the ranker: `recall_<channel>`."""
    return f"recall_{channel}"


def union(found: Iterable[np.ndarray]) -> np.ndarray:
    """Item rows that any channel found: int32, ascending, each once."""
    parts = [np.asarray(rows, np.int32) for rows in found]
    rows = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int32)
    first = np.ones(len(rows), bool)
    np.not_equal(rows[1:], rows[:-1], out=first[1:])  # what np.unique does, in a quarter of its time
    return rows[first]


def merged_scores(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Weighted sum of the channels' scores.

    Args:
        scores: `recall_<channel>` -> float32 [N]; other entries are ignored.
        weights: channel -> weight.

    Returns:
        float32 [N].
    """
    total = np.zeros(len(scores[feature_of(CHANNELS[0])]), np.float32)
    for channel in CHANNELS:  # in a fixed order: float32 sums depend on it
        total += np.float32(weights.get(channel, 0.0)) * scores[feature_of(channel)]
    return total


def best(rows: np.ndarray, scores: np.ndarray, size: int) -> np.ndarray:
    """Places of the `size` largest scores, best first; equal scores in the order of their item rows.

    Args:
        rows: int [N], item rows, each once. scores: float32 [N].

    Returns:
        int64 [min(size, N)], places in `rows`.
    """
    if 0 < size < len(rows):
        threshold = np.partition(scores, len(scores) - size)[len(scores) - size]
        places = np.flatnonzero(scores >= threshold)  # more than `size` only when the last place is shared
    else:
        places = np.arange(len(rows))
    return places[np.lexsort((rows[places], -scores[places]))][:size]


def merge(
    found: Iterable[np.ndarray], scores: Mapping[str, np.ndarray], weights: Mapping[str, float], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The merge rule for scores known over the whole catalog.

    Args:
        found: item rows per channel.
        scores: `recall_<channel>` -> float32 [items], of every item.
        weights: channel -> weight.
        size: the list's length at most.

    Returns:
        int32 item rows in merged order, best first, and their merged scores, float32.
    """
    rows = union(found)
    merged = merged_scores({name: array[rows] for name, array in scores.items()}, weights)
    chosen = best(rows, merged, size)
    return rows[chosen], merged[chosen]
