"""What a fit learns from a stream of rows, in memory that does not grow with the rows: token counts, quantiles, moments.

Token counts grow with the distinct values, which is what a vocabulary is; the others are bounded.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center.derived_values import Statistics
from data_exchange_center.token_tables import TokenTable

SMALLEST_DEVIATION = 1e-6  # of a number that hardly varies
MERGE_ROWS = 65_536  # counts of batches are merged when they are that many, or as many as what is merged already
EXACT_VALUES = 65_536  # distinct values up to which quantiles are exact
SAMPLE_ROWS = 262_144  # rows in the sample that quantiles are taken from beyond that


def stable_hash(positions: np.ndarray) -> np.ndarray:
    """A row's position -> uint64, the same on every machine: the finalizer of SplitMix64 (Steele et al., 2014)."""
    value = positions.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def fold_of(positions: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each row by its position in the fit's rows, int64 [rows] in [0, folds)."""
    return (stable_hash(positions) % np.uint64(folds)).astype(np.int64)


class TokenCounts:
    """Rows and positives per token and fold."""

    def __init__(self, folds: int) -> None:
        self.folds = folds
        self.all_rows, self.all_positives = np.zeros(folds, np.int64), np.zeros(folds, np.int64)
        self._merged: pa.Table | None = None
        self._pending: list[pa.Table] = []

    def add(self, tokens: pa.Array, folds: np.ndarray, positives: np.ndarray) -> None:
        """Counts some rows.

        Args:
            tokens: int64 or string [N]; null is counted as a token of its own.
            folds: int64 [N]. positives: bool [N].
        """
        self.all_rows += np.bincount(folds, minlength=self.folds)
        self.all_positives += np.bincount(folds[positives], minlength=self.folds)
        ones = np.ones(len(tokens), np.int64)
        rows = pa.table({"token": tokens, "fold": folds, "rows": ones, "positives": positives.astype(np.int64)})
        self._pending.append(_summed([rows]))
        waiting = sum(part.num_rows for part in self._pending)
        if waiting > max(MERGE_ROWS, self._merged.num_rows if self._merged else 0):
            self._merge()

    def _merge(self) -> pa.Table:
        parts = [*([self._merged] if self._merged else []), *self._pending]
        self._merged, self._pending = _summed(parts), []
        return self._merged

    def frequencies(self) -> tuple[pa.Array, np.ndarray]:
        """Distinct tokens (null among them, when there was one) and their rows."""
        if not self._merged and not self._pending:
            return pa.array([], pa.int64()), np.zeros(0, np.int64)
        summed = self._merge().group_by("token", use_threads=False).aggregate([("rows", "sum")])
        return summed["token"].combine_chunks(), summed["rows_sum"].to_numpy()

    def table(self, missing: int | str, min_frequency: float) -> TokenTable:
        """Tokens with at least `min_frequency` rows; null counts as the token `missing`."""
        merged = self._merge()
        token = pc.fill_null(merged["token"], pa.scalar(missing, merged["token"].type)).combine_chunks()
        encoded = token.dictionary_encode()
        distinct = encoded.dictionary
        place = (encoded.indices.to_numpy(), merged["fold"].to_numpy())
        rows, positives = (np.zeros((len(distinct), self.folds), np.int64) for _ in range(2))
        np.add.at(rows, place, merged["rows"].to_numpy())
        np.add.at(positives, place, merged["positives"].to_numpy())
        tokens = distinct.to_numpy(zero_copy_only=False)
        total = rows.sum(1)
        order = np.lexsort((tokens, -total))
        order = order[total[order] >= min_frequency]
        return TokenTable(tokens[order], rows[order], positives[order], self.all_rows, self.all_positives)


def _summed(parts: list[pa.Table]) -> pa.Table:
    """One line a token and fold."""
    grouped = pa.concat_tables(parts).group_by(["token", "fold"], use_threads=False)
    summed = grouped.aggregate([("rows", "sum"), ("positives", "sum")])
    return summed.rename_columns({"rows_sum": "rows", "positives_sum": "positives"})


class Moments:
    """Mean and deviation in float64, merged batch by batch (Chan et al., 1979), so that large means lose no digits."""

    def __init__(self) -> None:
        self.rows = 0
        self.mean: np.ndarray = np.zeros(1)
        self.squares: np.ndarray = np.zeros(1)  # sums of squared distances from the mean

    def add(self, values: np.ndarray) -> None:
        """Some rows, [N] or [N, L]."""
        if not len(values):
            return
        columns = values.reshape(len(values), -1).astype(np.float64)
        mean = columns.mean(0)
        squares = np.square(columns - mean).sum(0)
        rows = self.rows + len(columns)
        delta = mean - self.mean
        self.squares = self.squares + squares + delta**2 * (self.rows * len(columns) / rows)
        self.mean = self.mean + delta * (len(columns) / rows)
        self.rows = rows

    def statistics(self, length: int) -> Statistics:
        """Of `length` columns; a number that hardly varies gets deviation 1, so that it becomes 0."""
        if not self.rows:
            return Statistics((0.0,) * length, (1.0,) * length)
        deviation = np.sqrt(self.squares / self.rows)
        deviation[deviation < SMALLEST_DEVIATION] = 1.0
        return Statistics(tuple(self.mean.tolist()), tuple(deviation.tolist()))


class Quantiles:
    """Edges of bins of equal size.

    Exact while there are at most EXACT_VALUES distinct values. Beyond that, from a uniform sample of SAMPLE_ROWS rows: those
    whose position has the smallest stable hash, so that batches and threads do not matter. The standard error of a rank is then
    at most 0.5 / sqrt(SAMPLE_ROWS), a thousandth of the rows.
    """

    def __init__(self) -> None:
        self._values = np.zeros(0, np.float32)
        self._counts = np.zeros(0, np.int64)
        self._exact = True
        self._sample = np.zeros(0, np.float32)
        self._keys = np.zeros(0, np.uint64)

    def add(self, values: np.ndarray, positions: np.ndarray) -> None:
        """Some rows, float32 [N], NaN for missing ones, which do not count; positions int64 [N] in the fit's rows."""
        there = ~np.isnan(values)
        values, keys = values[there], stable_hash(positions[there])
        if self._exact:
            new, counts = np.unique(values, return_counts=True)
            merged, place = np.unique(np.concatenate([self._values, new]), return_inverse=True)
            self._counts = np.bincount(place, np.concatenate([self._counts, counts])).astype(np.int64)
            self._values, self._exact = merged, len(merged) <= EXACT_VALUES
        self._sample, self._keys = np.concatenate([self._sample, values]), np.concatenate([self._keys, keys])
        if len(self._keys) > SAMPLE_ROWS:
            kept = np.argpartition(self._keys, SAMPLE_ROWS)[:SAMPLE_ROWS]
            self._sample, self._keys = self._sample[kept], self._keys[kept]

    def edges(self, bins: int) -> tuple[float, ...]:
        """At most bins - 1 distinct values that occurred: the smallest with at least i / bins of the rows at or below it.

        A row belongs to the bin of the last edge that is at most its value. An edge that no row lies below would make an empty
        bin and is left out.
        """
        values, counts = self._values, self._counts
        if not self._exact:
            values, counts = np.unique(self._sample, return_counts=True)
        if not len(values):
            return ()
        below = np.cumsum(counts)
        wanted = np.arange(1, bins) * below[-1]
        place = np.searchsorted(below * bins, wanted, side="left")
        return tuple(float(value) for value in np.unique(values[place[place > 0]]))
