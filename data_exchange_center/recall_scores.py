"""Recall scores, defined once: the ranker's training tables, every candidate of a request and the parity check read them here.

A release's `recall/` folder, as `RecallArrays.save` writes it (item row = place in the items table, D = d + 2):

    item_vectors.npy            float32 [items, D]   embedding, bias, 1
    user_vectors.npy            float32 [users, D]   embedding, 1, minus the log-normaliser; row = place in the users table
    history_vectors.npy         float32 [items, d]   what one event adds to a user's embedding
    newcomer_vector.npy         float32 [d]          embedding of a user of whom nothing is known
    normaliser_{rows,offsets}   int32, float32 [S]   items over which the log-normaliser sums, and minus log of their rate
    item_{indptr,indices,values} CSR, source item x recommended item: item-to-item
    term_{indptr,indices,values} CSR, term x item: strength of an item in a term
    popularity.npy              float32 [segments, items]
    recall.json                 terms, segments, how history counts, weights of the merge rule
    affinity_*.npy, affinity.json  optional, see affinity.py

Scores of a user for an item, all float32:

    recall_vector      log of (probability that the item is next, times the number of items), by the factorization machine
    recall_item        sum over the history of weight x similarity, divided by the root of the summed weights
    recall_term        sum over the user's terms of weight x the item's strength
    recall_popularity  log of (share of the segment's positives, smoothed, times the number of items)

The last three are scaled to a spread of about one over a catalog. Who has no vector, history or terms scores zero there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center.affinity import Affinity
from data_exchange_center.candidates import CHANNELS, DEFAULT_WEIGHTS, best, feature_of
from data_exchange_center.errors import DataError
from data_exchange_center.recall_parts import HistoryWeights, Sparse, VectorArrays
from data_exchange_center.release import Release
from data_exchange_center.workspace import read_array, read_json, write_array, write_json

DENSE_ITEMS = 4096  # catalogs up to this size hold item-to-item dense, which is faster than adding up neighbour lists
FEATURES = tuple(feature_of(channel) for channel in CHANNELS)


@dataclass(frozen=True)
class UserTaste:
    """What recall reads of one user.

    Attributes:
        vector: float32 [D]; empty when the user has none.
        terms, term_weights: preferred terms and float32 weights, aligned.
        history: int32 [H], item rows, oldest first. history_labels: int8 [H]. history_values: float32 [H], ratings or labels.
        segment: of the popularity table; an unknown one counts as "", the global one.
    """

    vector: np.ndarray
    terms: tuple[str, ...]
    term_weights: np.ndarray
    history: np.ndarray
    history_labels: np.ndarray
    history_values: np.ndarray
    segment: str = ""


NOBODY = UserTaste(
    vector=np.empty(0, np.float32),
    terms=(),
    term_weights=np.empty(0, np.float32),
    history=np.empty(0, np.int32),
    history_labels=np.empty(0, np.int8),
    history_values=np.empty(0, np.float32),
)


@dataclass(frozen=True)
class RecallArrays:
    """All channels of one release or cut, opened by `load` or `open`; read-only, shared by threads.

    Attributes:
        popularity: float32 [segments, items]; row 0 is the global segment "".
        weights: channel -> weight in the merge rule.
        affinity: when the ranker asks for it.
    """

    vectors: VectorArrays
    similar: Sparse
    strength: Sparse
    popularity: np.ndarray
    terms: tuple[str, ...]
    segments: tuple[str, ...]
    history: HistoryWeights = field(default_factory=HistoryWeights)
    weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    affinity: Affinity | None = None

    @property
    def item_count(self) -> int:
        return int(self.popularity.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `scores`."""
        from_affinity = ("affinity_mean", "affinity_positive", "affinity_support") if self.affinity else ()
        return (*FEATURES, *from_affinity)

    @classmethod
    def open(cls, release: Release) -> RecallArrays:
        """The arrays of a release."""
        return cls.load(release.file("recall/recall.json").parent)

    @classmethod
    def load(cls, folder: Path) -> RecallArrays:
        """What `save` wrote; arrays are memory-mapped.

        Raises:
            DataError: a file is missing or contradicts another; the message names it.
        """
        described: dict[str, Any] = read_json(folder / "recall.json")
        arrays = cls(
            vectors=VectorArrays.load(folder),
            similar=Sparse.load(folder, "item"),
            strength=Sparse.load(folder, "term"),
            popularity=read_array(folder / "popularity.npy", mmap=True),
            terms=tuple(described["terms"]),
            segments=tuple(described["segments"]),
            history=HistoryWeights(**described["history"]),
            weights=dict(described["merge"]),
            affinity=Affinity.load(folder) if (folder / "affinity.json").exists() else None,
        )
        arrays.check(folder)
        return arrays

    def save(self, folder: Path) -> None:
        """Writes everything but the affinity, `recall.json` last."""
        self.vectors.save(folder)
        self.similar.save(folder, "item")
        self.strength.save(folder, "term")
        write_array(folder / "popularity.npy", self.popularity)
        self.describe(folder)

    def describe(self, folder: Path) -> None:
        """Writes `recall.json`."""
        described = {"terms": list(self.terms), "segments": list(self.segments), "history": asdict(self.history)}
        write_json(folder / "recall.json", {**described, "merge": dict(self.weights)})

    def check(self, folder: Path) -> None:
        """DataError unless the arrays fit each other; `folder` is for the message."""
        items = self.item_count
        self.similar.check("item", items, items, folder)
        self.strength.check("term", len(self.terms), items, folder)
        vectors = self.vectors
        dimension = vectors.item_vectors.shape[1]
        fits = (
            len(vectors.item_vectors) == len(vectors.history_vectors) == items
            and vectors.user_vectors.shape[1] == dimension == vectors.history_vectors.shape[1] + 2
            and len(vectors.normaliser_rows) == len(vectors.normaliser_offsets)
            and len(self.popularity) == len(self.segments)
        )
        if not fits:
            raise DataError(f"{folder}: the recall arrays contradict each other in size; fit the channels again")

    @cached_property
    def _dense_similar(self) -> np.ndarray | None:
        """float32 [items, items] for small catalogs: row j holds what an event with item j recommends."""
        if self.item_count > DENSE_ITEMS:
            return None
        dense = np.zeros((self.item_count, self.item_count), np.float32)
        dense[np.repeat(np.arange(self.item_count), np.diff(self.similar.indptr)), self.similar.indices] = (
            self.similar.values
        )
        return dense

    @cached_property
    def _term_numbers(self) -> dict[str, int]:
        return {term: number for number, term in enumerate(self.terms)}

    @cached_property
    def _segment_numbers(self) -> dict[str, int]:
        return {segment: number for number, segment in enumerate(self.segments)}

    @cached_property
    def popular_orders(self) -> np.ndarray:
        """int32 [segments, items]: item rows, most popular first, equal ones by row."""
        orders = [np.argsort(-row, kind="stable") for row in np.asarray(self.popularity)]
        return np.stack(orders).astype(np.int32)

    def segment_number(self, segment: str) -> int:
        """Row of the popularity table: 0, the global one, for a segment that it does not know."""
        return self._segment_numbers.get(segment, 0)

    def vector_of(self, taste: UserTaste) -> np.ndarray:
        """The user's vector; for a user without one it is made from the history. Empty when there is neither."""
        if len(taste.vector) or not len(taste.history):
            return taste.vector
        pooled = self.vectors.pooled(taste.history, taste.history_labels, self.history)
        return self.vectors.folded(self.vectors.newcomer_vector + pooled)

    def scores(
        self, taste: UserTaste, rows: np.ndarray, item_scores: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Every recall score of one user for some items; a score does not depend on what else is asked along with it.

        Args:
            taste: the user.
            rows: int [N], item rows.
            item_scores: what `item_scores(taste)` returned, when it is at hand; saves half of the work.

        Returns:
            name -> float32 [N]: `recall_<channel>` for each channel, and the affinity's scores where the release has them.
        """
        found = {
            feature_of("vector"): self.vector_scores(taste, rows),
            feature_of("item"): (self.item_scores(taste) if item_scores is None else item_scores)[rows],
            feature_of("term"): self.term_scores(taste)[rows],
            feature_of("popularity"): self.popularity[self.segment_number(taste.segment)][rows],
        }
        if self.affinity is not None:
            found |= self.affinity.scores(taste.history, taste.history_values, rows)
        return found

    def vector_scores(self, taste: UserTaste, rows: np.ndarray | None = None) -> np.ndarray:
        """`recall_vector` of the items given, or of all: float32."""
        vectors = self.vectors.item_vectors if rows is None else self.vectors.item_vectors[rows]
        vector = self.vector_of(taste)
        # einsum adds up each row by itself; a matrix product's rounding would depend on how many items are asked
        return np.einsum("nd,d->n", vectors, vector) if len(vector) else np.zeros(len(vectors), np.float32)

    def item_scores(self, taste: UserTaste) -> np.ndarray:
        """`recall_item` of all items: float32 [items]."""
        if not len(taste.history):
            return np.zeros(self.item_count, np.float32)
        weights = self.history.of(taste.history_labels)
        weights = weights / np.sqrt(np.maximum(weights.sum(), np.float32(1e-12)))  # dislikes may weigh nothing
        history = taste.history[-self.history.limit :]
        if self._dense_similar is None:
            return self.similar.weighted_sum(history, weights, self.item_count)
        total: np.ndarray = weights @ self._dense_similar[history]
        return total

    def term_scores(self, taste: UserTaste) -> np.ndarray:
        """`recall_term` of all items: float32."""
        numbers = np.array([self._term_numbers.get(term, -1) for term in taste.terms], np.int64)
        known = numbers >= 0
        return self.strength.weighted_sum(numbers[known], taste.term_weights[known], self.item_count)

    def catalog_scores(self, taste: UserTaste) -> dict[str, np.ndarray]:
        """`recall_<channel>` -> float32 [items], of every item: what the channels search in."""
        return {
            feature_of("vector"): self.vector_scores(taste),
            feature_of("item"): self.item_scores(taste),
            feature_of("term"): self.term_scores(taste),
            feature_of("popularity"): np.asarray(self.popularity[self.segment_number(taste.segment)]),
        }


def top_rows(scores: np.ndarray, eligible: np.ndarray, size: int) -> np.ndarray:
    """The `size` eligible items with the largest scores, best first, ties by row. scores: [items], eligible: bool [items]."""
    rows = np.flatnonzero(eligible).astype(np.int32)
    return rows[best(rows, scores[rows], size)]


def tastes(profiles: pa.Table, user_vectors: np.ndarray) -> list[UserTaste]:
    """The users of a profile table (tables.USER_PROFILES), in its order; `user_vectors` in the same order."""
    lists = {name: _split(profiles[name]) for name in ("term_weights", "history", "history_labels")}
    values = (
        _split(profiles["history_values"]) if "history_values" in profiles.column_names else lists["history_labels"]
    )
    terms, segments = profiles["terms"].to_pylist(), profiles["segment"].to_pylist()
    return [
        UserTaste(
            vector=user_vectors[row],
            terms=tuple(terms[row]),
            term_weights=lists["term_weights"][row],
            history=lists["history"][row],
            history_labels=lists["history_labels"][row],
            history_values=values[row].astype(np.float32, copy=False),
            segment=segments[row],
        )
        for row in range(profiles.num_rows)
    ]


def _split(column: pa.ChunkedArray) -> list[np.ndarray]:
    """A list column as one array per row, without a copy of the values."""
    combined = column.combine_chunks()
    offsets = combined.offsets.to_numpy()
    values = combined.values.to_numpy(zero_copy_only=False)
    return [values[start:end] for start, end in pairwise(offsets)]
