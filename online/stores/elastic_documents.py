"""A release's items as the documents of its Elasticsearch index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from data_exchange_center import columns as c
from data_exchange_center.release import Release
from data_exchange_center.workspace import read_array, read_json
from online.stores.elastic_queries import strength_field

LAYOUT = 1  # counts up when documents or mapping change, so that indexes of an older layout are built again
FILES = (
    "tables/items.parquet",
    "recall/item_vectors.npy",
    "recall/term_indptr.npy",
    "recall/term_indices.npy",
    "recall/term_values.npy",
    "recall/popularity.npy",
    "recall/recall.json",
)


class Documents:
    """Everything the index of a release is made of; items are read in one go, documents are made one by one.

    Attributes:
        terms: every term of the release, in the order of the strength matrix.
        meta: what tells this content from any other: release, number of items, fingerprint of the files.
    """

    def __init__(self, release: Release) -> None:
        self._items = release.table("items")
        self._vectors = read_array(release.file("recall/item_vectors.npy"), mmap=True)
        self._popularity = read_array(release.file("recall/popularity.npy"), mmap=True)[0]
        self._strengths = [
            read_array(release.file(f"recall/term_{part}.npy")) for part in ("indptr", "indices", "values")
        ]
        self.terms: list[str] = read_json(release.file("recall/recall.json"))["terms"]
        content = "".join(str(release.manifest["files"][name]["sha256"]) for name in FILES)
        self.meta: dict[str, Any] = {
            "release": release.id,
            "items": len(self),
            "fingerprint": hashlib.sha256(f"{LAYOUT}{content}".encode()).hexdigest(),
        }

    def __len__(self) -> int:
        return int(self._items.num_rows)

    @property
    def dimension(self) -> int:
        return int(self._vectors.shape[1])

    @cached_property
    def _strengths_by_item(self) -> list[dict[str, float]]:
        """Item row -> strength column -> strength. The release keeps the matrix by term."""
        indptr, indices, values = self._strengths
        found: list[dict[str, float]] = [{} for _ in range(len(self))]
        for number, term in enumerate(self.terms):
            field = strength_field(term).removeprefix("strength.")
            part = slice(indptr[number], indptr[number + 1])
            for row, value in zip(indices[part].tolist(), values[part].tolist(), strict=True):
                found[row][field] = value
        return found

    def actions(self, index: str) -> Iterator[dict[str, Any]]:
        """Bulk actions, one an item, in the order of the item rows."""
        columns = {name: self._items[name].to_pylist() for name in self._items.column_names}
        absent = [None] * len(self)
        titles, years, terms = (columns.get(name, absent) for name in (c.TITLE, c.YEAR, c.TERMS))
        for row, item in enumerate(columns[c.ITEM_ID]):
            yield {
                "_index": index,
                "_id": str(item),
                "item_id": str(item),
                "item_row": row,
                "title": titles[row],
                "terms": terms[row] or [],
                "strength": self._strengths_by_item[row],
                "year": years[row] or 0,
                "popularity": float(self._popularity[row]),
                "vector": np.asarray(self._vectors[row], np.float32).tolist(),
            }
