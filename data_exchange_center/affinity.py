"""How much a user will like an item, from what the user thought of similar items: the ranker's strongest input for `like`.

Two items are similar when the same users deviate from their habits in the same direction on both (shrunk adjusted cosine of
rating residuals); unlike co-occurrence the similarity has a sign. A score sums a user's own residuals over the whole earlier
history, weighted by that similarity:

    h_j = value_j - mean of the user's values (shrunk) - bias of item j
    affinity_mean     = sum_j S_ij h_j / (sum_j |S_ij| + 0.5)
    affinity_positive = sum_j max(S_ij, 0) h_j
    affinity_support  = log1p(sum_j |S_ij|)

Fitted by `offline/recall/affinity.py`. Computed here and only here, in float32, for training rows, for requests and for checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_array, read_json, write_array, write_json

NAMES = ("affinity_mean", "affinity_positive", "affinity_support")
LIMIT = 400  # of a user's newest events that count
USER_SHRINKAGE = 5.0  # events at the global mean that every user starts with
SUPPORT_FLOOR = 0.5
DENSE_ITEMS = 4096  # catalogs up to this size are held dense, which is faster than adding up neighbour lists
_FILES = ("indptr", "indices", "values", "bias")


@dataclass(frozen=True)
class Affinity:
    """A fitted affinity model.

    Attributes:
        indptr: int64 [I + 1]; neighbours of item row j are `indices[indptr[j]:indptr[j + 1]]`.
        indices: int32, item rows, ascending within an item.
        values: float32, similarities, aligned with `indices`.
        bias: float32 [I], what the item gets beyond its raters' means.
        mean: mean value of all events of the fit.
        dense: float32 [I, I] for small catalogs, else None: row j holds the same numbers as j's neighbour list.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    mean: float
    dense: np.ndarray | None

    @classmethod
    def from_arrays(
        cls, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, bias: np.ndarray, mean: float
    ) -> Affinity:
        """Builds the model and, for a small catalog, its dense form."""
        items = len(bias)
        dense = None
        if items <= DENSE_ITEMS:
            dense = np.zeros((items, items), np.float32)
            dense[np.repeat(np.arange(items), np.diff(indptr)), indices] = values
        return cls(indptr, indices, values, bias, mean, dense)

    @classmethod
    def load(cls, folder: Path) -> Affinity:
        """Opens what `save` wrote; the neighbour lists stay memory-mapped.

        Raises:
            DataError: a file is missing or the arrays contradict each other; the message names the folder.
        """
        indptr, indices, values, bias = (read_array(folder / f"affinity_{name}.npy", mmap=True) for name in _FILES)
        whole = len(indptr) == len(bias) + 1 and len(indices) == len(values) == indptr[-1]
        if not whole or (len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(bias)):
            raise DataError(f"{folder}: the affinity arrays contradict each other; fit the affinity again")
        return cls.from_arrays(
            indptr, indices, values, np.asarray(bias), float(read_json(folder / "affinity.json")["mean"])
        )

    def save(self, folder: Path) -> None:
        """Writes `affinity_*.npy` and `affinity.json` into the folder."""
        for name, array in zip(_FILES, (self.indptr, self.indices, self.values, self.bias), strict=True):
            write_array(folder / f"affinity_{name}.npy", array)
        write_json(folder / "affinity.json", {"mean": self.mean, "items": len(self.bias)})

    def scores(self, history: np.ndarray, values: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The three scores of one user for some items; zeros for a user without history.

        Args:
            history: int [H], item rows of the user's earlier events, oldest first. values: float [H], aligned with it.
            rows: int [N], item rows to score.

        Returns:
            name -> float32 [N], in the order of NAMES.
        """
        history, values = history[-LIMIT:], values[-LIMIT:].astype(np.float32)
        if not len(history):
            return {name: np.zeros(len(rows), np.float32) for name in NAMES}
        residual = values - user_mean(values.sum(dtype=np.float64), len(values), self.mean) - self.bias[history]
        if self.dense is not None:
            places = history.astype(np.int64)[:, None] * len(self.bias) + rows  # one flat take beats indexing both axes
            near = self.dense.ravel().take(places)  # [H, N]
            signed = residual @ near
            unsigned, support = np.stack([residual, np.ones_like(residual)]) @ np.abs(near)
        else:
            signed, unsigned, support = (part.take(rows) for part in self._over_catalog(history, residual))
        return finished(signed, unsigned, support)

    def _over_catalog(self, history: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sums for every item, by adding up the neighbour lists of the history: [I] each."""
        starts, ends = self.indptr[history], self.indptr[history + 1]
        places = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        near, items = self.values[places], self.indices[places]
        repeated, size = np.repeat(residual, ends - starts), len(self.bias)
        signed = np.bincount(items, near * repeated, size)
        strength = np.abs(near)
        return signed, np.bincount(items, strength * repeated, size), np.bincount(items, strength, size)


def user_mean(total: float | np.ndarray, events: int | np.ndarray, mean: float) -> np.float32 | np.ndarray:
    """Mean of a user's values, shrunk towards the global mean: what the user's residuals are measured from."""
    return np.float32((total + USER_SHRINKAGE * mean) / (events + USER_SHRINKAGE))


def finished(signed: np.ndarray, unsigned: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """The scores from the sums of S h, |S| h and |S|: divided and damped here, once. max(S, 0) is half of S + |S|."""
    made = (signed / (support + SUPPORT_FLOOR), 0.5 * (signed + unsigned), np.log1p(support))
    return {name: np.asarray(array, np.float32) for name, array in zip(NAMES, made, strict=True)}
