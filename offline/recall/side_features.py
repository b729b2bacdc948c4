"""Attributes of users or items as the sparse side features of the factorization machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from data_exchange_center import columns as c

MIN_ROWS = 5  # a token of fewer users (or items) has nothing to learn from
BUCKETS = 16  # of a numeric attribute, of about equal size
_NOT_FEATURES = (c.USER_ID, c.ITEM_ID, c.TITLE)


@dataclass(frozen=True)
class SideFeatures:
    """One-hot and multi-hot attributes.

    Attributes:
        matrix: CSR float32 [rows, tokens]; one-hot entries are 1, those of a list share 1 among them.
        tokens: `<column>=<value>` of each column of the matrix.
    """

    matrix: sp.csr_matrix
    tokens: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.tokens)


def side_features(table: pa.Table) -> SideFeatures:
    """Every attribute of a users or items table: lists and strings by value, numbers in buckets; ids and titles are left out."""
    parts: list[sp.csr_matrix] = []
    names: list[str] = []
    for column in table.column_names:
        if column in _NOT_FEATURES:
            continue
        found = _column(table[column].combine_chunks())
        if found is not None:
            matrix, tokens = found
            parts.append(matrix)
            names += [f"{column}={token}" for token in tokens]
    if not parts:
        return SideFeatures(sp.csr_matrix((table.num_rows, 0), dtype=np.float32), ())
    return SideFeatures(sp.hstack(parts, format="csr", dtype=np.float32), tuple(names))


def _column(values: pa.Array) -> tuple[sp.csr_matrix, list[str]] | None:
    kind = values.type
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        rows = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
        return _tokens(rows, pc.list_flatten(values), len(values))
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):
        present = pc.is_valid(values).to_numpy(zero_copy_only=False)
        return _tokens(np.flatnonzero(present), pc.drop_null(values).cast(pa.string()), len(values))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        present = np.flatnonzero(np.isfinite(numbers))
        buckets = numeric_buckets(numbers[present], BUCKETS)
        return _tokens(present, pa.array([f"bucket {number}" for number in buckets], pa.string()), len(values))
    return None


def numeric_buckets(numbers: np.ndarray, count: int) -> np.ndarray:
    """Which of at most `count` buckets of about equal size each number is in: int64, from 0 on; equal numbers share one."""
    if not len(numbers):
        return np.empty(0, np.int64)
    edges = np.unique(np.quantile(numbers, np.arange(1, count) / count))
    return np.unique(np.searchsorted(edges, numbers, side="right"), return_inverse=True)[1]


def _tokens(rows: np.ndarray, values: pa.Array, row_count: int) -> tuple[sp.csr_matrix, list[str]]:
    """Pairs of row and value as a matrix over the values that enough rows have."""
    encoded = pc.dictionary_encode(values)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    known = codes >= 0
    pairs = np.unique(np.stack((rows[known], codes[known])), axis=1).astype(np.int64)
    frequent = np.bincount(pairs[1], minlength=len(encoded.dictionary)) >= MIN_ROWS
    names: Iterable[str] = encoded.dictionary.to_pylist()
    tokens = sorted((name, code) for code, name in enumerate(names) if frequent[code])
    number = np.full(len(frequent), -1)
    number[[code for _, code in tokens]] = np.arange(len(tokens))
    row, token = pairs[0], number[pairs[1]]
    weight = 1 / np.bincount(row, minlength=row_count)[row]
    kept = token >= 0
    matrix = sp.csr_matrix((weight[kept], (row[kept], token[kept])), (row_count, len(tokens)), np.float32)
    return matrix, [name for name, _ in tokens]
