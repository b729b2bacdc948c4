"""Fits the affinity model: signed item-item similarity of rating residuals, and its scores for training rows.

A training row must not see a similarity that its own rating helped to make: the rows of each fold of users are scored with
similarities of all other users (`training_scores`). Serving uses the similarities of everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from data_exchange_center.affinity import LIMIT, NAMES, USER_SHRINKAGE, Affinity, finished, user_mean
from offline.recall.known_rows import Events

ITEM_SHRINKAGE = 5.0
SIMILARITY_SHRINKAGE = 100.0  # common raters at which a similarity counts half
FOLDS = 5


@dataclass(frozen=True)
class _Residuals:
    """Residuals of all events as sparse [U, I] matrices, and what they were measured from."""

    signed: sp.csr_matrix
    present: sp.csr_matrix
    bias: np.ndarray
    mean: float


def fit_affinity(events: Events, *, neighbours: int = 512, exact_items: int = 8000) -> Affinity:
    """Fits the model on every event given.

    Args:
        events: what is known at the cut.
        neighbours: kept per item, by absolute similarity.
        exact_items: the most rated items that take part; the others have no neighbours (memory: 16 bytes x exact_items^2).
    """
    residuals = _residuals(events)
    chosen = _most_rated(residuals, exact_items)
    similarity = _similarity(_Sums.of(residuals, chosen))
    return _truncated(similarity, chosen, residuals, neighbours)


def training_scores(
    fit: Events, known: Events, queries: Events, *, neighbours: int = 512, exact_items: int = 8000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Point-in-time scores of rows that the model may have been fitted on.

    Args:
        fit: events that the similarities come from.
        known: events that histories come from, a superset of `fit` (the judged fit scores test rows with histories that
            hold earlier test rows, as it would have been).
        queries: rows to score, each from the user's known events with a strictly smaller timestamp. Users with events in
            `fit` are scored out of fold for rows that `fit` holds, with everybody's similarities for the others.

    Returns:
        name -> float32 [rows of queries], in the order of affinity.NAMES.
    """
    residuals = _residuals(fit)
    chosen = _most_rated(residuals, exact_items)
    total = _Sums.of(residuals, chosen)
    fold_of_user = np.random.default_rng(seed).permutation(fit.user_count) % FOLDS
    inside = np.isin(_keys(queries), _keys(fit))
    out = {name: np.zeros(len(queries.users), np.float32) for name in NAMES}
    for fold in tqdm(range(FOLDS + 1), desc="affinity of training rows", leave=False):
        if fold == FOLDS:
            rows, sums = np.flatnonzero(~inside), total
        else:
            rows = np.flatnonzero(inside & (fold_of_user[queries.users] == fold))
            sums = total.minus(_Sums.of(residuals, chosen, np.flatnonzero(fold_of_user == fold)))
        if len(rows):
            model = _truncated(_similarity(sums), chosen, residuals, neighbours)
            _score_rows(model, known, queries, rows, out)
    return out


def _score_rows(
    model: Affinity,
    histories: Events,
    queries: Events,
    rows: np.ndarray,
    out: dict[str, np.ndarray],
) -> None:
    """Scores some rows, all rows of a user at once; the same sums as `Affinity.scores`, with a history cut per row."""
    rows = rows[np.argsort(queries.users[rows], kind="stable")]
    for part in np.split(rows, np.flatnonzero(np.diff(queries.users[rows])) + 1):
        user = queries.users[part[0]]
        events = slice(histories.starts[user], histories.starts[user + 1])
        items, values, times = histories.items[events], histories.values[events], histories.timestamps[events]
        before = np.searchsorted(times, queries.timestamps[part])  # [R], events strictly before each row
        running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        first = np.maximum(before - LIMIT, 0)
        means = user_mean(running[before] - running[first], before - first, model.mean)
        place = np.arange(len(items))
        seen = (place >= first[:, None]) & (place < before[:, None])  # [R, H]
        near = _between(model, items, queries.items[part]) * seen  # [R, H]
        residual = (values - model.bias[items])[None, :] - np.asarray(means)[:, None]
        strength = np.abs(near)
        scores = finished((near * residual).sum(1), (strength * residual).sum(1), strength.sum(1))
        for name, array in scores.items():
            out[name][part] = array


def _between(model: Affinity, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Similarity of history items to rows, [R, H]."""
    if model.dense is not None:
        return model.dense[history[None, :], rows[:, None]]
    size = len(model.bias)
    matrix = sp.csr_matrix((model.values, model.indices, model.indptr), shape=(size, size))
    return matrix[history][:, rows].toarray().T


def _keys(events: Events) -> np.ndarray:
    return events.users * events.item_count + events.items


def _residuals(events: Events) -> _Residuals:
    users, items, values = events.users, events.items, events.values.astype(np.float64)
    mean = float(values.mean()) if len(values) else 0.0
    user_events = np.bincount(users, minlength=events.user_count)
    user_total = np.bincount(users, weights=values, minlength=events.user_count)
    means = (user_total + USER_SHRINKAGE * mean) / (user_events + USER_SHRINKAGE)
    item_events = np.bincount(items, minlength=events.item_count)
    bias = np.bincount(items, weights=values - means[users], minlength=events.item_count) / (
        item_events + ITEM_SHRINKAGE
    )
    residual = (values - means[users] - bias[items]).astype(np.float32)
    _, last = np.unique(_keys(events)[::-1], return_index=True)  # a pair that occurs twice counts once, the later one
    kept = len(users) - 1 - last
    shape = (events.user_count, events.item_count)
    place = (users[kept], items[kept])
    ones = np.ones(len(kept), np.float32)
    return _Residuals(
        sp.csr_matrix((residual[kept], place), shape=shape),
        sp.csr_matrix((ones, place), shape=shape),
        bias.astype(np.float32),
        mean,
    )


def _most_rated(residuals: _Residuals, limit: int) -> np.ndarray:
    counts = np.asarray(residuals.present.sum(axis=0)).ravel()
    return np.sort(np.argsort(-counts, kind="stable")[:limit])


@dataclass(frozen=True)
class _Sums:
    """Over common raters of two items: products of residuals, squares of the first's, and their number; [C, C] each."""

    products: np.ndarray
    squares: np.ndarray
    common: np.ndarray

    @classmethod
    def of(cls, residuals: _Residuals, items: np.ndarray, users: np.ndarray | None = None) -> _Sums:
        signed, present = residuals.signed[:, items], residuals.present[:, items]
        if users is not None:
            signed, present = signed[users], present[users]
        squared = signed.multiply(signed)
        return cls(
            *(_product(left, right) for left, right in ((signed, signed), (squared, present), (present, present)))
        )

    def minus(self, other: _Sums) -> _Sums:
        return _Sums(self.products - other.products, self.squares - other.squares, self.common - other.common)


def _product(left: sp.csr_matrix, right: sp.csr_matrix) -> np.ndarray:
    return np.asarray((left.T @ right).toarray(), np.float32)


def _similarity(sums: _Sums) -> np.ndarray:
    """Shrunk adjusted cosine, float32 [C, C], zero on the diagonal."""
    floor = np.float32(1e-3)
    norm = np.sqrt(np.maximum(sums.squares, floor) * np.maximum(sums.squares.T, floor))
    similarity = sums.products / norm * (sums.common / (sums.common + np.float32(SIMILARITY_SHRINKAGE)))
    np.fill_diagonal(similarity, 0)
    return np.clip(similarity, -1, 1)


def _truncated(similarity: np.ndarray, items: np.ndarray, residuals: _Residuals, neighbours: int) -> Affinity:
    """Keeps each item's strongest neighbours, as lists over the whole catalog."""
    size, kept = len(items), min(neighbours, len(items))
    if kept < size:
        weakest = np.partition(np.abs(similarity), size - kept, axis=1)[:, size - kept][:, None]
        similarity = np.where(np.abs(similarity) >= weakest, similarity, np.float32(0))
    matrix = sp.csr_matrix(similarity)
    matrix.sort_indices()
    counts = np.zeros(len(residuals.bias), np.int64)
    counts[items] = np.diff(matrix.indptr)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Affinity.from_arrays(
        indptr, items[matrix.indices].astype(np.int32), matrix.data.astype(np.float32), residuals.bias, residuals.mean
    )
