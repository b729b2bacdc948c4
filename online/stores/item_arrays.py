"""What an item index is made of, read from a release: vectors, term strengths, and what filters look at."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.release import Release
from data_exchange_center.workspace import read_array, read_json, write_array

SOURCES = (
    "tables/items.parquet",
    "recall/item_vectors.npy",
    "recall/term_indptr.npy",
    "recall/term_indices.npy",
    "recall/term_values.npy",
    "recall/recall.json",
)


@dataclass(frozen=True)
class ItemArrays:
    """Arrays over the items of a release; item row = place in its items table.

    Attributes:
        vectors: float32 [items, D], the item's side of the vector channel.
        strength_indptr: int64 [terms + 1]; strength_rows: int32, item rows by term, ascending; strength_values: float32.
        member_indptr: int64 [terms + 1]; member_rows: int32, the items that carry a term, ascending: what filters look at.
        years: int64 [items], 0 when unknown.
    """

    vectors: np.ndarray
    strength_indptr: np.ndarray
    strength_rows: np.ndarray
    strength_values: np.ndarray
    member_indptr: np.ndarray
    member_rows: np.ndarray
    years: np.ndarray

    def save(self, folder: Path) -> None:
        """One `.npy` per array."""
        for field in fields(self):
            write_array(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def open(cls, folder: Path) -> ItemArrays:
        """What `save` wrote, memory-mapped: workers share one copy of it in memory."""
        return cls(**{field.name: read_array(folder / f"{field.name}.npy", mmap=True) for field in fields(cls)})


def read_item_arrays(release: Release) -> tuple[list[str], ItemArrays]:
    """The release's terms, in the order of the arrays, and the arrays."""
    terms: list[str] = read_json(release.file("recall/recall.json"))["terms"]
    items = release.table("items")
    rows, numbers = memberships(items, terms)
    order = np.lexsort((rows, numbers))
    counts = np.bincount(numbers, minlength=len(terms))
    years = items[c.YEAR].to_numpy() if c.YEAR in items.column_names else np.zeros(items.num_rows, np.int64)
    return terms, ItemArrays(
        vectors=read_array(release.file("recall/item_vectors.npy")),
        strength_indptr=read_array(release.file("recall/term_indptr.npy")).astype(np.int64),
        strength_rows=read_array(release.file("recall/term_indices.npy")).astype(np.int32),
        strength_values=read_array(release.file("recall/term_values.npy")).astype(np.float32),
        member_indptr=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        member_rows=rows[order].astype(np.int32),
        years=years,
    )


def memberships(items: pa.Table, terms: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (item row, number of the term) for every known term that an item carries, each pair once."""
    if c.TERMS not in items.column_names or not terms:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lists = items[c.TERMS].combine_chunks()
    numbers = pc.index_in(pc.list_flatten(lists), value_set=pa.array(terms, pa.string()))
    known = pc.is_valid(numbers)
    rows = pc.filter(pc.list_parent_indices(lists), known).to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = np.stack((rows, pc.filter(numbers, known).to_numpy(zero_copy_only=False).astype(np.int64)))
    pairs = np.unique(pairs, axis=1)
    return pairs[0], pairs[1]
