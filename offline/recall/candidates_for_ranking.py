"""What the ranker learns from: the candidates that recall would hand over at a cut, with every recall score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError
from data_exchange_center.recall_scores import RecallArrays, UserTaste, tastes
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_array, read_table
from offline.recall.assembly import PROFILES
from offline.recall.known_rows import KnownRows, load_known_rows
from offline.recall.lists import Finder
from offline.recall.thread_limit import thread_limit

RANK = "rank"


def recall_candidates(settings: Settings, cut: str, size: int, users: pa.Array | None = None) -> pa.Table:
    """The merged candidates of users as serving would find them at a cut, items met before left out.

    Args:
        settings: of the run. cut: whose fitted channels are asked; all recall steps must have run there.
        size: candidates per user at most.
        users: ids; by default every user with known events at the cut.

    Returns:
        user_id, item_id, rank (int32, 0 is best) and every score of `RecallArrays.scores` (float32); users in the order asked.
    """
    known, arrays, all_tastes = _open(settings, cut)
    finder = Finder(arrays, all_tastes, known.events, settings.recall.candidates)
    chosen = np.flatnonzero(np.diff(known.events.starts) > 0) if users is None else _rows(known.users, c.USER_ID, users)

    def lists() -> Iterator[tuple[int, np.ndarray]]:
        for user in tqdm(chosen.tolist(), desc="candidates", unit="user", leave=False):
            yield user, finder.find(user).merged(arrays, size)

    with thread_limit(settings.recall.threads):
        return _scored(known, arrays, all_tastes, list(lists()), ranked=True)


def recall_scores_for(settings: Settings, cut: str, pairs: pa.Table) -> pa.Table:
    """Every recall score, at a cut, of any pairs of user and item.

    Args:
        settings: of the run. cut: whose fitted channels are asked.
        pairs: user_id and item_id, in any order; known interactions, too, are scored.

    Returns:
        user_id, item_id and every score of `RecallArrays.scores` (float32), in the order of `pairs`.

    Raises:
        DataError: an id that the canonical tables do not hold.
    """
    known, arrays, all_tastes = _open(settings, cut)
    user_rows = _rows(known.users, c.USER_ID, pairs[c.USER_ID])
    item_rows = _rows(known.items, c.ITEM_ID, pairs[c.ITEM_ID])
    order = np.argsort(user_rows, kind="stable")
    users, first = np.unique(user_rows[order], return_index=True)
    parts = np.split(item_rows[order].astype(np.int32), first[1:]) if len(users) else []
    lists = list(zip(users.tolist(), parts, strict=True))
    with thread_limit(settings.recall.threads):
        table = _scored(known, arrays, all_tastes, lists, ranked=False)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return table.take(pa.array(back))


def _open(settings: Settings, cut: str) -> tuple[KnownRows, RecallArrays, list[UserTaste]]:
    known = load_known_rows(settings, cut)
    folder = Workspace(settings).recall(cut)
    arrays = RecallArrays.load(folder)
    profiles = read_table(folder / PROFILES)
    return known, arrays, tastes(profiles, read_array(folder / "user_vectors.npy"))


def _rows(table: pa.Table, column: str, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Places of ids in their table: int64."""
    found = pc.index_in(ids, value_set=table[column].combine_chunks())
    if found.null_count:
        unknown = pc.filter(ids, pc.is_null(found))[0].as_py()
        raise DataError(
            f"{column} {unknown!r} is not in its table; only ids of the canonical tables can be scored", field=column
        )
    return found.to_numpy(zero_copy_only=False).astype(np.int64)


def _scored(
    known: KnownRows, arrays: RecallArrays, users: list[UserTaste], lists: list[tuple[int, np.ndarray]], ranked: bool
) -> pa.Table:
    """One row per user row and item row of the lists."""
    lengths = [len(rows) for _, rows in lists]
    user_rows = np.repeat([user for user, _ in lists], lengths).astype(np.int64)
    item_rows = np.concatenate([rows for _, rows in lists]) if lists else np.empty(0, np.int32)
    scores = {name: np.empty(len(item_rows), np.float32) for name in arrays.names}
    end = 0
    for user, rows in lists:
        start, end = end, end + len(rows)
        for name, values in arrays.scores(users[user], rows).items():
            scores[name][start:end] = values
    columns = {
        c.USER_ID: known.users[c.USER_ID].take(pa.array(user_rows)),
        c.ITEM_ID: known.items[c.ITEM_ID].take(pa.array(item_rows)),
    }
    if ranked:
        places = np.concatenate([np.arange(length) for length in lengths]) if lists else np.empty(0)
        columns[RANK] = pa.array(places.astype(np.int32))
    return pa.table({**columns, **scores})
