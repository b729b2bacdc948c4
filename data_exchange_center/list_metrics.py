"""How good a ranked list is, by what the user chose next. Shared by the channels' and the whole chain's evaluation.

For a user with the held-out positives R and a list L: recall@k = |R in L[:k]| / |R|, hit rate@k = 1 if that is above 0, and
nDCG@k with binary gains and 1 / log2(rank + 1) discounts, the ideal list having min(k, |R|) positives first (Järvelin and
Kekäläinen, 2002). Users without held-out positives do not count; the metrics are means over the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def hits_of(ranked: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """bool [len(ranked)]: which places of the list hold a positive. ranked, relevant: item rows or ids, each once."""
    return np.isin(ranked, relevant)


def recall_at(hits: np.ndarray, relevant: int, k: int) -> float:
    """Share of the user's positives among the first k."""
    return float(hits[:k].sum()) / relevant


def ndcg_at(hits: np.ndarray, relevant: int, k: int) -> float:
    """Normalised discounted cumulative gain of the first k."""
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    return float(hits[:k] @ discounts[: len(hits[:k])]) / float(discounts[: min(k, relevant)].sum())


def per_user(
    lists: Iterable[tuple[np.ndarray, np.ndarray]], recall: Sequence[int] = (50, 100, 200), top: int = 50
) -> dict[str, np.ndarray]:
    """Metrics of each user who has held-out positives.

    Args:
        lists: per user: the ranked list, best first, and the held-out positives; users without positives are skipped.
        recall: cuts of recall; a list shorter than a cut counts as it is.
        top: cut of nDCG and of the hit rate.

    Returns:
        `r<k>` for each cut, `ndcg<top>` and `hr<top>`: float64 [users].
    """
    found: dict[str, list[float]] = {name: [] for name in [*(f"r{k}" for k in recall), f"ndcg{top}", f"hr{top}"]}
    for ranked, positives in lists:
        if not len(positives):
            continue
        hits = hits_of(ranked, positives)
        for k in recall:
            found[f"r{k}"].append(recall_at(hits, len(positives), k))
        found[f"ndcg{top}"].append(ndcg_at(hits, len(positives), top))
        found[f"hr{top}"].append(float(hits[:top].any()))
    return {name: np.array(values) for name, values in found.items()}


def list_metrics(
    lists: Iterable[tuple[np.ndarray, np.ndarray]], recall: Sequence[int] = (50, 100, 200), top: int = 50
) -> dict[str, float]:
    """Means of `per_user` (0 when nobody counts), and `users`, how many counted."""
    found = per_user(lists, recall, top)
    means = {name: float(values.mean()) if len(values) else 0.0 for name, values in found.items()}
    return {**means, "users": len(found[f"ndcg{top}"])}
