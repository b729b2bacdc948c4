"""The parts that recall scores are computed from: history weights, a sparse matrix and the vectors. See recall_scores.py."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_array, write_array


@dataclass(frozen=True)
class HistoryWeights:
    """How much an event of a user's history counts: more when it is recent, less when it was a dislike.

    Attributes:
        disliked: weight of an event with label 0, against 1 of a positive one.
        boost: what the newest event counts on top.
        decay: events after which that boost has fallen to 1/e.
        limit: the newest events that count at all.
        pooling: a sum of embeddings is divided by its summed weights (1 at least) to this power.
    """

    disliked: float = 0.5
    boost: float = 4.0
    decay: float = 8.0
    limit: int = 400
    pooling: float = 0.6

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Weights of the newest `limit` events. labels: int8 [H], oldest first -> float32 [min(H, limit)]."""
        labels = labels[-self.limit :]
        age = np.arange(len(labels) - 1, -1, -1, dtype=np.float32)
        return self.at(labels, age)

    def at(self, labels: np.ndarray, age: np.ndarray) -> np.ndarray:
        """Weights of events with these labels that have `age` newer events after them. -> float32, aligned."""
        recency = 1 + np.float32(self.boost) * np.exp(-age.astype(np.float32) / np.float32(self.decay))
        return np.where(labels > 0, recency, np.float32(self.disliked) * recency).astype(np.float32)


@dataclass(frozen=True)
class Sparse:
    """A float32 CSR matrix: row r holds `values[indptr[r]:indptr[r + 1]]` at columns `indices[...]`, ascending."""

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    def weighted_sum(self, rows: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
        """Sum of weight x row over the rows given. -> float32 [size]."""
        if not len(rows):
            return np.zeros(size, np.float32)
        starts, ends = self.indptr[rows], self.indptr[rows + 1]
        lengths = ends - starts
        places = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(int(lengths.sum()))
        weighted = self.values[places] * np.repeat(weights, lengths)
        return np.bincount(self.indices[places], weighted, size).astype(np.float32)

    def save(self, folder: Path, name: str) -> None:
        """`<name>_indptr.npy`, `<name>_indices.npy`, `<name>_values.npy`."""
        for part in fields(self):
            write_array(folder / f"{name}_{part.name}.npy", getattr(self, part.name))

    @classmethod
    def load(cls, folder: Path, name: str) -> Sparse:
        """What `save` wrote, memory-mapped."""
        return cls(*(read_array(folder / f"{name}_{part.name}.npy", mmap=True) for part in fields(cls)))

    def check(self, name: str, rows: int, columns: int, folder: Path) -> None:
        """DataError unless the parts fit each other and the sizes."""
        whole = len(self.indptr) == rows + 1 and len(self.indices) == len(self.values) == self.indptr[-1]
        if not whole or (len(self.indices) and not 0 <= self.indices.min() <= self.indices.max() < columns):
            raise DataError(f"{folder}/{name}_*.npy: not a {rows} x {columns} matrix; fit the channel again")


@dataclass(frozen=True)
class VectorArrays:
    """The vector channel; shapes in the module's docstring."""

    item_vectors: np.ndarray
    user_vectors: np.ndarray
    history_vectors: np.ndarray
    newcomer_vector: np.ndarray
    normaliser_rows: np.ndarray
    normaliser_offsets: np.ndarray

    def save(self, folder: Path) -> None:
        """One `.npy` per array."""
        for part in fields(self):
            write_array(folder / f"{part.name}.npy", getattr(self, part.name))

    @classmethod
    def load(cls, folder: Path) -> VectorArrays:
        """What `save` wrote, memory-mapped."""
        return cls(*(read_array(folder / f"{part.name}.npy", mmap=True) for part in fields(cls)))

    def folded(self, embeddings: np.ndarray) -> np.ndarray:
        """[..., d] embeddings of users -> float32 [..., D] vectors whose inner product with an item's is `recall_vector`."""
        vectors = np.zeros((*embeddings.shape[:-1], embeddings.shape[-1] + 2), np.float32)
        vectors[..., :-2], vectors[..., -2] = embeddings, 1.0
        logits = vectors @ self.item_vectors[self.normaliser_rows].T + self.normaliser_offsets
        top = logits.max(axis=-1, keepdims=True)
        total = top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1, dtype=np.float64))
        vectors[..., -1] = np.log(len(self.item_vectors)) - total
        return vectors

    def pooled(self, history: np.ndarray, labels: np.ndarray, weights: HistoryWeights) -> np.ndarray:
        """What a history adds to a user's embedding. history: int [H], labels: int8 [H], oldest first -> float32 [d]."""
        if not len(history):
            return np.zeros_like(self.newcomer_vector)
        weight = weights.of(labels)
        summed: np.ndarray = weight @ self.history_vectors[history[-weights.limit :]]
        return summed / np.float32(max(float(weight.sum()), 1.0) ** weights.pooling)
