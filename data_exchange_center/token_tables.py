"""What the fit's rows say about each value of a column: how often it came, and with how many positives, by fold.

Count and target encodings are read off such a table, by the encoder's graph and by whoever wants to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_table, write_table


@dataclass(frozen=True)
class TokenTable:
    """The values of one feature in the fit's rows.

    Attributes:
        tokens: int64 or str (object) [T], most frequent first, equal ones by value.
        rows: int64 [T, K], rows with the token in each of K folds.
        positives: int64 [T, K], the positive ones among them.
        all_rows, all_positives: int64 [K], of the whole fit, also with tokens too rare for the table.
    """

    tokens: np.ndarray
    rows: np.ndarray
    positives: np.ndarray
    all_rows: np.ndarray
    all_positives: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def folds(self) -> int:
        """K."""
        return self.rows.shape[1]

    def counts(self, min_frequency: float, *, without_itself: bool = False) -> np.ndarray:
        """float32 [T + 1]: rows of each token, 0 for rarer ones; the last one is of a value that the table does not hold: 0.

        `without_itself` is for the fit's own rows, which do not count themselves: to them a token that comes once is as new as
        it will be to others.
        """
        total = self.rows.sum(1)
        counts = np.append(np.where(total >= min_frequency, total, 0), 0)
        return np.maximum(counts - without_itself, 0).astype(np.float32)

    def rates(self, strength: float, min_frequency: float) -> np.ndarray:
        """Smoothed share of positives, float32 [T + 1, K + 1].

        Column k says what all folds but k know, for rows of fold k; the last column what all of them know, for other rows. The
        last line is of a value that the table does not hold: the prior.
        """
        kept = (self.rows.sum(1) >= min_frequency)[:, None]
        rows = _others(np.vstack([self.rows * kept, np.zeros((1, self.folds), np.int64)]))
        positives = _others(np.vstack([self.positives * kept, np.zeros((1, self.folds), np.int64)]))
        prior = _others(self.all_positives[None]) / np.maximum(_others(self.all_rows[None]), 1)
        weight = rows + strength
        known = (positives + strength * prior) / np.maximum(weight, 1e-9)
        return np.where(weight > 0, known, prior).astype(np.float32)

    def save(self, path: Path) -> dict[str, list[int]]:
        """Writes a Parquet file (token, rows and positives by fold) atomically; returns the totals, which `load` takes."""
        columns = {"token": self.tokens, "rows": list(self.rows), "positives": list(self.positives)}
        kinds = {"rows": pa.list_(pa.int64()), "positives": pa.list_(pa.int64())}
        kind = pa.string() if self.tokens.dtype == object else pa.int64()
        arrays = {name: pa.array(values, kinds.get(name, kind)) for name, values in columns.items()}
        write_table(path, pa.table(arrays))
        return {"rows": self.all_rows.tolist(), "positives": self.all_positives.tolist()}

    @classmethod
    def load(cls, path: Path, totals: Mapping[str, Any]) -> TokenTable:
        """Reads what `save` wrote.

        Raises:
            DataError: missing, broken, or not of as many folds as the totals.
        """
        content = read_table(path)
        try:
            all_rows, all_positives = (np.array(totals[name], np.int64) for name in ("rows", "positives"))
            folds = len(all_rows)
            rows, positives = (
                content[name].combine_chunks().flatten().to_numpy().reshape(content.num_rows, folds)
                for name in ("rows", "positives")
            )
            tokens = content["token"].combine_chunks().to_numpy(zero_copy_only=False)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a token table: {error!r}") from error
        return cls(tokens, rows, positives, all_rows, all_positives)


def _others(by_fold: np.ndarray) -> np.ndarray:
    """[T, K] -> [T, K + 1]: the sum over the other folds, then over all."""
    total = by_fold.sum(1, keepdims=True)
    return np.hstack([total - by_fold, total])
