"""Term recall: what terms a user prefers, and how strong an item is in each of its terms.

A preference is how much more of the user's weighted history a term takes than of everybody's; dislikes count against it. A strength
is the term's IDF (a term of few items says more) times the item's share of popularity inside the term, so that the channel
reaches into the user's own corner of the catalog instead of naming what is popular anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from data_exchange_center import columns as c
from data_exchange_center.recall_parts import HistoryWeights, Sparse
from offline.recall.known_rows import Events

COMMON_TASTE = 0.5  # of everybody's share of a term that is taken off a user's


@dataclass(frozen=True)
class TermChannel:
    """The term channel.

    Attributes:
        terms: by number of items, then name.
        strength: term x item.
        preferences: CSR float32 [users, terms], positive entries only.
    """

    terms: tuple[str, ...]
    strength: Sparse
    preferences: sp.csr_matrix


def fit_terms(items: pa.Table, events: Events, weights: HistoryWeights) -> TermChannel:
    """Fits the channel on the known rows; empty, but whole, for items without terms."""
    terms, belongs = item_terms(items)
    popularity = np.bincount(events.positives.items, minlength=events.item_count) + 1.0
    per_item = np.maximum(np.diff(belongs.indptr), 1)
    strength = sp.csr_matrix(sp.diags(popularity / np.sqrt(per_item)) @ belongs)
    columns = strength.tocsc()
    top = np.maximum(columns.max(axis=0).toarray().ravel(), 1e-12) if terms else np.ones(0)
    idf = np.log1p(events.item_count / np.maximum(np.asarray(belongs.sum(0)).ravel(), 1))
    scaled = sp.csr_matrix((columns @ sp.diags(idf / top)).T)
    preferences = _preferences(belongs, events, weights)
    scores = (preferences[:: max(1, events.user_count // 1000)] @ scaled).toarray()
    spread = float(scores.std(axis=1).mean()) if scores.size else 0.0
    if spread > 0:
        scaled /= spread
    scaled.sort_indices()
    parts = (scaled.indptr.astype(np.int64), scaled.indices.astype(np.int32), scaled.data.astype(np.float32))
    return TermChannel(terms, Sparse(*parts), preferences)


def item_terms(items: pa.Table) -> tuple[tuple[str, ...], sp.csr_matrix]:
    """The terms, by number of items and then name, and which item has which: CSR float64 [items, terms] of ones."""
    if c.TERMS not in items.column_names:
        return (), sp.csr_matrix((items.num_rows, 0))
    lists = items[c.TERMS].combine_chunks()
    encoded = pc.dictionary_encode(pc.list_flatten(lists))
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    names = encoded.dictionary.to_pylist()
    belongs = sp.csr_matrix((np.ones(len(codes)), (rows, codes)), (items.num_rows, len(names)))
    belongs.data[:] = 1.0  # a term that an item lists twice counts once
    counts = np.asarray(belongs.sum(0)).ravel()
    order = sorted(range(len(names)), key=lambda number: (-counts[number], names[number]))
    return tuple(names[number] for number in order), belongs[:, order]


def _preferences(belongs: sp.csr_matrix, events: Events, weights: HistoryWeights) -> sp.csr_matrix:
    """[users, terms]: the user's share of each term beyond a part of everybody's."""
    weight = weights.at(np.ones(len(events), np.int8), events.ages).astype(float)
    signed = np.where(events.labels > 0, weight, -weights.disliked * weight)
    counted = events.ages < weights.limit
    per_item = sp.diags(1 / np.maximum(np.diff(belongs.indptr), 1)) @ belongs
    pairs = (events.users[counted], events.items[counted])
    shape = (events.user_count, events.item_count)
    shares = (sp.csr_matrix((signed[counted], pairs), shape) @ per_item).toarray()
    total = np.bincount(events.users[counted], np.abs(signed[counted]), events.user_count)
    shares /= np.maximum(total, 1e-12)[:, None]
    active = total > 0
    common = shares[active].mean(axis=0) if active.any() else np.zeros(shares.shape[1])
    return sp.csr_matrix(np.where(active[:, None], np.maximum(shares - COMMON_TASTE * common, 0), 0).astype(np.float32))


def preferred(channel: TermChannel) -> tuple[list[list[str]], list[np.ndarray]]:
    """Per user the preferred terms, best first, and their float32 weights."""
    names, weights = [], []
    matrix = channel.preferences
    for first, last in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        numbers, values = matrix.indices[first:last], matrix.data[first:last]
        order = np.lexsort((numbers, -values))
        names.append([channel.terms[number] for number in numbers[order]])
        weights.append(values[order].astype(np.float32))
    return names, weights
