"""Recall arrays of a tiny release: random vectors and similarities, term strengths from popularity inside the term."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from data_exchange_center.recall_parts import Sparse, VectorArrays
from data_exchange_center.recall_scores import RecallArrays

if TYPE_CHECKING:
    from tests.factories import Content


def write_recall(folder: Path, content: Content, generator: np.random.Generator, dimension: int) -> None:
    """Writes `recall/` in the form of a real release; `dimension` is that of the embeddings."""
    items = len(content.item_ids)
    counts = np.bincount(np.concatenate(content.histories), minlength=items)
    terms = sorted({term for names in content.item_terms for term in names})
    pairs = [(terms.index(term), item) for item, names in enumerate(content.item_terms) for term in names]
    numbers, columns = np.array(pairs).T
    strength = sparse.csr_matrix((np.log1p(counts[columns]) + 0.1, (numbers, columns)), (len(terms), items))
    segments = ("", *sorted(set(content.genders)))
    popularity = np.log1p(counts) + np.zeros((len(segments), 1))
    arrays = RecallArrays(
        vectors=random_vectors(content, generator, dimension),
        similar=as_rows(sparse.random(items, items, 0.2, "csr", np.float32, generator)),
        strength=as_rows(strength),
        popularity=popularity.astype(np.float32),
        terms=tuple(terms),
        segments=segments,
    )
    arrays.save(folder / "recall")


def random_vectors(content: Content, generator: np.random.Generator, dimension: int) -> VectorArrays:
    """Vectors of nobody in particular, folded like real ones."""
    items, users = len(content.item_ids), len(content.user_ids)
    item_vectors = generator.normal(size=(items, dimension + 2)).astype(np.float32)
    item_vectors[:, -1] = 1.0
    arrays = VectorArrays(
        item_vectors=item_vectors,
        user_vectors=np.empty((0, dimension + 2), np.float32),
        history_vectors=generator.normal(0, 0.1, (items, dimension)).astype(np.float32),
        newcomer_vector=generator.normal(size=dimension).astype(np.float32),
        normaliser_rows=np.arange(items, dtype=np.int32),
        normaliser_offsets=np.zeros(items, np.float32),
    )
    embeddings = generator.normal(size=(users, dimension)).astype(np.float32)
    folded = np.stack([arrays.folded(embedding) for embedding in embeddings])
    return VectorArrays(**{**vars(arrays), "user_vectors": folded})


def as_rows(matrix: sparse.csr_matrix) -> Sparse:
    """A scipy matrix in the release's form."""
    matrix.sort_indices()
    return Sparse(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32))
