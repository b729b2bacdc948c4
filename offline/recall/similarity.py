"""Item-to-item recall: EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019), truncated to neighbours.

EASE is the ridge regression of every item on all others with a zero diagonal, in closed form: B = I - P / diag(P) with
P = (X'X + ridge)^-1. It is exact for the `exact_items` items with the most events. An item beyond them recommends, and is
recommended, by the regression on one item alone, X'X_ij / (X'X_ii + ridge), scaled so that both kinds weigh alike: time and
memory then grow with the events of a log and not with the cube of its catalog.

Dislikes count too, with less weight: that somebody saw an item tells where the user moves, whatever the verdict was.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from tqdm import tqdm

from data_exchange_center.recall_parts import HistoryWeights, Sparse
from data_exchange_center.settings import RecallSettings
from offline.recall.known_rows import Events

BLOCK_ENTRIES = 25_000_000  # of a dense block of similarities: 200 MB
SCALE_USERS = 1000


def fit_similarity(events: Events, weights: HistoryWeights, settings: RecallSettings) -> Sparse:
    """Similarities of every item with known rows to its strongest neighbours, scaled to unit spread of the scores.

    Args:
        events: known at the cut. weights: how history counts.
        settings: `neighbours`, `exact_items`, `item_regularization`.

    Returns:
        source item x recommended item.
    """
    weighted = interactions(events, weights)
    similar = _truncated(weighted, settings)
    return _with_unit_spread(similar, events, weights)


def interactions(events: Events, weights: HistoryWeights) -> sp.csr_matrix:
    """CSR float64 [users, items]: 1 for a positive, `weights.disliked` else, of a user's newest `limit` events, each item once."""
    recent = events.ages < weights.limit
    users, items = events.users[recent], events.items[recent]
    value = np.where(events.labels[recent] > 0, 1.0, weights.disliked)
    order = np.lexsort((value, items, users))  # of an item met twice the stronger one counts
    pair = users[order] * events.item_count + items[order]
    last = np.append(pair[1:] != pair[:-1], True) if len(pair) else np.empty(0, bool)
    kept = order[last]
    shape = (events.user_count, events.item_count)
    matrix = sp.csr_matrix((value[kept], (users[kept], items[kept])), shape)
    matrix.eliminate_zeros()
    return matrix


def ease(gram: np.ndarray, ridge: float) -> np.ndarray:
    """The closed form. gram: float64 [n, n], X'X (overwritten) -> float64 [n, n] with a zero diagonal."""
    places = np.diag_indices_from(gram)
    gram[places] += ridge
    factor, info = scipy.linalg.lapack.dpotrf(gram, lower=False, overwrite_a=True)
    inverse, failed = scipy.linalg.lapack.dpotri(factor, lower=False, overwrite_c=True)
    if info or failed:
        raise np.linalg.LinAlgError("X'X + ridge is not positive definite; raise recall.item_regularization")
    inverse = np.triu(inverse) + np.triu(inverse, 1).T
    similar: np.ndarray = inverse / -np.diag(inverse)
    similar[places] = 0.0
    return similar


def _truncated(weighted: sp.csr_matrix, settings: RecallSettings) -> Sparse:
    items = weighted.shape[1]
    strength = np.asarray(weighted.multiply(weighted).sum(0)).ravel()
    known = np.flatnonzero(strength > 0)
    head = np.sort(known[np.lexsort((known, -strength[known]))][: settings.exact_items])
    if not len(known):
        return Sparse(np.zeros(items + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    columns = weighted[:, head]
    exact = ease((columns.T @ columns).toarray(), settings.item_regularization)
    simple_share = _scale_of_simple(columns, exact, settings.item_regularization)
    place = np.full(items, -1)
    place[head] = np.arange(len(head))
    by_item = weighted.T.tocsr()
    everything_exact = len(head) == len(known)
    block = max(1, BLOCK_ENTRIES // max(items, 1))
    neighbours: list[np.ndarray] = [np.empty(0, np.int64)] * items
    values: list[np.ndarray] = [np.empty(0, np.float32)] * items
    for first in tqdm(range(0, len(known), block), desc="neighbours", unit="block", leave=False):
        sources = known[first : first + block]
        if everything_exact:
            rows = np.zeros((len(sources), items))
        else:
            rows = (by_item[sources] @ weighted).toarray()
            rows *= simple_share / (strength[sources] + settings.item_regularization)[:, None]
            rows[np.arange(len(sources)), sources] = 0.0
        inside = np.flatnonzero(place[sources] >= 0)
        rows[np.ix_(inside, head)] = exact[place[sources[inside]]]
        for source, row in zip(sources, rows, strict=True):
            neighbours[source] = _strongest(row, settings.neighbours)
            values[source] = row[neighbours[source]].astype(np.float32)
    lengths = [len(found) for found in neighbours]
    return Sparse(
        indptr=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        indices=np.concatenate(neighbours).astype(np.int32),
        values=np.concatenate(values),
    )


def _strongest(row: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` entries of largest size, zeros left out, ascending."""
    size = np.abs(row)
    if count < len(row):
        chosen = np.sort(np.argpartition(-size, count)[:count])
        return chosen[size[chosen] > 0]
    return np.flatnonzero(size)


def _scale_of_simple(columns: sp.csr_matrix, exact: np.ndarray, ridge: float) -> float:
    """What makes one-item regressions as large on the whole as EASE's weights: EASE shares a co-occurrence out, they don't."""
    gram = (columns.T @ columns).tocsr()
    own = gram.diagonal()
    simple = np.abs(sp.diags(1 / (own + ridge)) @ gram).sum() - (own / (own + ridge)).sum()
    return float(np.abs(exact).sum() / simple) if simple > 0 else 1.0


def _with_unit_spread(similar: Sparse, events: Events, weights: HistoryWeights) -> Sparse:
    """The same, divided by the standard deviation of its scores over users and the catalog."""
    users = np.flatnonzero(np.diff(events.starts) > 0)
    users = users[:: max(1, len(users) // SCALE_USERS)]
    deviations = []
    for user in users:
        rows = slice(int(events.starts[user]), int(events.starts[user + 1]))
        weight = weights.of(events.labels[rows])
        if weight.sum() > 0:
            history = events.items[rows][-weights.limit :]
            deviations.append(similar.weighted_sum(history, weight / np.sqrt(weight.sum()), events.item_count).std())
    spread = float(np.mean(deviations)) if deviations else 0.0
    return Sparse(similar.indptr, similar.indices, similar.values / np.float32(spread)) if spread > 0 else similar
