"""A release's items as the documents of its Elasticsearch index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_exchange_center import columns as c
from data_exchange_center.release import Release
from data_exchange_center.workspace import read_array
from online.stores.elastic_queries import lifted, strength_field
from online.stores.item_arrays import SOURCES, read_item_arrays

LAYOUT = 3  # counts up when documents or mapping change, so that an index of an older layout is built again
POPULARITY = "recall/popularity.npy"


class Documents:
    """Everything that the index of a release is made of.

    Attributes:
        terms: every term of the release.
        dimension: of the item vectors.
        meta: what tells this content from any other: release, number of items, fingerprint of the files.
    """

    def __init__(self, release: Release) -> None:
        self.terms, self._arrays = read_item_arrays(release)
        self.dimension = int(self._arrays.vectors.shape[1])
        self._popularity = read_array(release.file(POPULARITY), mmap=True)[0]  # of the global segment
        items = release.table("items")
        self._ids = items[c.ITEM_ID].to_pylist()
        self._titles = items[c.TITLE].to_pylist() if c.TITLE in items.column_names else [""] * len(self._ids)
        content = "".join(str(release.manifest["files"][name]["sha256"]) for name in (*SOURCES, POPULARITY))
        self.meta: dict[str, Any] = {
            "release": release.id,
            "items": len(self),
            "fingerprint": hashlib.sha256(f"{LAYOUT}{content}".encode()).hexdigest(),
        }

    def __len__(self) -> int:
        return len(self._ids)

    def actions(self, index: str) -> Iterator[dict[str, Any]]:
        """Bulk actions, one an item, in the order of the item rows."""
        arrays = self._arrays
        members = by_item(arrays.member_indptr, arrays.member_rows, np.ones(len(arrays.member_rows)), len(self))
        strengths = by_item(arrays.strength_indptr, arrays.strength_rows, arrays.strength_values, len(self))
        vectors = lifted(arrays.vectors) if self.dimension else arrays.vectors
        for row, item in enumerate(self._ids):
            strong = {self.terms[number]: value for number, value in strengths[row]}
            document = {
                "_index": index,
                "_id": str(item),
                "item_id": str(item),
                "item_row": row,
                "title": self._titles[row],
                "terms": [self.terms[number] for number, _ in members[row]],
                "recalled_by": list(strong),
                "strength": {strength_field(term, parent=False): value for term, value in strong.items()},
                "popularity": float(self._popularity[row]),
                "vector": vectors[row].tolist(),
            }
            if arrays.years[row]:
                document["year"] = int(arrays.years[row])
            yield document


def by_item(indptr: np.ndarray, rows: np.ndarray, values: np.ndarray, items: int) -> Sequence[list[tuple[int, float]]]:
    """Item row -> (number of the term, value) of each entry of a matrix that is kept by term."""
    found: list[list[tuple[int, float]]] = [[] for _ in range(items)]
    numbers = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    for number, row, value in zip(numbers.tolist(), rows.tolist(), values.tolist(), strict=True):
        found[row].append((number, value))
    return found
