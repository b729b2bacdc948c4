"""Recall arrays of a tiny release: random vectors and similarities, term strengths from popularity inside the term."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from data_exchange_center.workspace import write_array, write_json

if TYPE_CHECKING:
    from tests.factories import Content


def write_recall(folder: Path, content: Content, generator: np.random.Generator, dimension: int) -> None:
    """Writes `recall/` as the recall stage does."""
    target, items = folder / "recall", len(content.item_ids)
    write_array(target / "item_vectors.npy", generator.normal(size=(items, dimension)).astype(np.float32))
    write_array(
        target / "user_vectors.npy", generator.normal(size=(len(content.user_ids), dimension)).astype(np.float32)
    )
    terms = sorted({term for names in content.item_terms for term in names})
    counts = np.bincount(np.concatenate(content.histories), minlength=items)
    rows, columns = zip(
        *((terms.index(term), item) for item, names in enumerate(content.item_terms) for term in names), strict=True
    )
    strength = sparse.csr_matrix((np.log1p(counts[list(columns)]), (rows, columns)), (len(terms), items), np.float32)
    neighbours = sparse.random(items, items, 0.2, "csr", np.float32, generator)
    for name, matrix in (("term", strength), ("item", neighbours)):
        matrix.sort_indices()
        write_array(target / f"{name}_indptr.npy", matrix.indptr.astype(np.int64))
        write_array(target / f"{name}_indices.npy", matrix.indices.astype(np.int32))
        write_array(target / f"{name}_values.npy", matrix.data.astype(np.float32))
    segments = ["", *sorted(set(content.genders))]
    write_array(target / "popularity.npy", np.tile(np.log1p(counts).astype(np.float32), (len(segments), 1)))
    write_json(target / "recall.json", {"terms": terms, "segments": segments})
