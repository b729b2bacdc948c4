"""From scored candidates to the answered order: score, threshold, and diversity when it is asked for."""

from __future__ import annotations

import numpy as np


def by_score(score: np.ndarray, min_score: float = 0.0) -> np.ndarray:
    """Places of the candidates at or above `min_score`, best first; equal scores keep the order they came in. int64 [n]."""
    order = np.argsort(-score, kind="stable")
    return order[score[order] >= np.float32(min_score)] if min_score > 0 else order


def diversified(order: np.ndarray, score: np.ndarray, vectors: np.ndarray, diversity: float, size: int) -> np.ndarray:
    """Maximal marginal relevance: each next item weighs its score against its likeness to those already chosen.

    Args:
        order: int64 [n], candidates best first.
        score: float32 [N], of all candidates, in 0..1.
        vectors: float32 [N, D], of all candidates; likeness is their cosine, 0 for a zero vector.
        diversity: 0 keeps the order; 1 looks at likeness alone after the first.
        size: how many to choose.

    Returns:
        int64 [min(n, size)], a subset of `order`.

    Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.
    """
    chosen = np.empty(min(len(order), size), np.int64)
    if not len(chosen):
        return chosen
    relevance = (1.0 - diversity) * score[order].astype(np.float64)
    lengths = np.linalg.norm(vectors[order], axis=1, keepdims=True)
    unit = np.divide(vectors[order], lengths, out=np.zeros_like(vectors[order]), where=lengths > 0)
    likest = np.full(len(order), -1.0)
    place = 0
    for turn in range(len(chosen)):
        if turn:
            likest = np.maximum(likest, unit @ unit[place])
            place = int(np.argmax(relevance - diversity * likest))
        chosen[turn] = order[place]
        relevance[place] = -np.inf
    return chosen
