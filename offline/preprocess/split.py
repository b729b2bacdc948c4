"""Which rows play training, test and online traffic. Two protocols, both by time, neither ever looking at a label.

`per_user`: a user's events in the order of (timestamp, position). The last `online_events` are online; of the rest the first
`train_fraction`, rounded up, are train and what remains is test. A user with no more events than `online_events` has only
online rows.

`global_time`: the moment decides. The newest rows are online, those before them test, the older ones train, with moments chosen
so that the parts are as large as under `per_user`. Rows of one second are never torn apart: those that share the moment of the
cut go to the later part. So nothing in train is newer than anything in test, and parts may be smaller than planned for.

`early` marks the older `train_fraction` of train, cut the same way: per user, rounded up, or by one moment.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError
from data_exchange_center.settings import SplitSettings
from data_exchange_center.tables import INTERACTIONS, SPLIT_INTERACTIONS
from offline.datasets.canonical import codes

TRAIN, TEST, ONLINE = 0, 1, 2
NAMES = np.array([c.TRAIN, c.TEST, c.ONLINE])


def split_interactions(interactions: pa.Table, settings: SplitSettings) -> pa.Table:
    """Adds `row_id`, `split` and `early` to the interactions; rows stay in their order.

    Raises:
        DataError: a table that breaks its schema, or a protocol that leaves no train rows.
    """
    INTERACTIONS.validate(interactions)
    users, _ = codes(interactions[c.USER_ID])
    times = interactions[c.TIMESTAMP].to_numpy()
    positions = interactions[c.POSITION].to_numpy()
    cut = split_per_user if settings.protocol == "per_user" else split_by_time
    split, early = cut(users, times, positions, settings.online_events, settings.train_fraction)
    if not (split == TRAIN).any():
        raise DataError(
            f"the {settings.protocol} split leaves no train rows of {len(split)}; lower split.online_events "
            f"(now {settings.online_events}) or bring a longer log",
            field="split.online_events",
        )
    table = interactions.add_column(0, c.ROW_ID, pa.array(np.arange(len(split), dtype=np.int64)))
    table = table.append_column(c.SPLIT, pa.DictionaryArray.from_arrays(split.astype(np.int8), NAMES).cast(pa.string()))
    return SPLIT_INTERACTIONS.validate(table.append_column("early", pa.array(early)))


def split_per_user(
    users: np.ndarray, times: np.ndarray, positions: np.ndarray, online_events: int, train_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """The protocol `per_user`.

    Args:
        users: [rows] int64 codes, 0-based. times, positions: [rows] int64.
        online_events: of each user. train_fraction: of the user's other events, rounded up.

    Returns:
        [rows] int8 split (TRAIN, TEST, ONLINE) and [rows] bool early.
    """
    # one key of user and time sorts twice as fast as two; with times below 2^32 it holds 2^31 users
    since = times - times.min()
    order = np.lexsort((positions, users * (int(since.max()) + 1) + since))
    counts = np.bincount(users)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    rank = np.empty(len(users), dtype=np.int64)  # place among the user's own events, oldest 0
    rank[order] = np.arange(len(users)) - np.repeat(starts, counts)
    offline, train = _sizes(counts, online_events, train_fraction)
    split = np.full(len(users), ONLINE, dtype=np.int8)
    split[rank < offline[users]] = TEST
    split[rank < train[users]] = TRAIN
    return split, rank < _share(train, train_fraction)[users]


def split_by_time(
    users: np.ndarray, times: np.ndarray, positions: np.ndarray, online_events: int, train_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """The protocol `global_time`; arguments and result as in `split_per_user` (positions never decide here)."""
    offline, train = (int(sizes.sum()) for sizes in _sizes(np.bincount(users), online_events, train_fraction))
    ordered = np.sort(times)
    split = np.full(len(users), TRAIN, dtype=np.int8)
    split[times >= _moment(ordered, train)] = TEST
    split[times >= _moment(ordered, offline)] = ONLINE
    kept = int((split == TRAIN).sum())
    return split, times < min(
        _moment(ordered, train), _moment(ordered, int(_share(np.array([kept]), train_fraction)[0]))
    )


def _sizes(counts: np.ndarray, online_events: int, train_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Per user: rows before the online ones, and rows of train among them."""
    offline = np.maximum(counts - online_events, 0)
    return offline, _share(offline, train_fraction)


def _share(counts: np.ndarray, fraction: float) -> np.ndarray:
    """`ceil(count * fraction)` in exact arithmetic: 0.07 * 100 is 7, and not the 8 that floats make of it."""
    exact = Fraction(str(fraction))
    distinct, places = np.unique(counts, return_inverse=True)
    return np.array([math.ceil(int(count) * exact) for count in distinct], dtype=np.int64)[places]


def _moment(ordered: np.ndarray, size: int) -> float:
    """The first moment that no longer belongs to the oldest `size` rows; infinite when all of them do."""
    return float(ordered[size]) if size < len(ordered) else math.inf
