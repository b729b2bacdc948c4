"""What recall knows at a cut: the rows up to it as arrays, and the rows of the next cut as labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import SHOWN, read_dataset_info
from data_exchange_center.errors import DataError
from data_exchange_center.recall_parts import HistoryWeights
from data_exchange_center.settings import Settings
from data_exchange_center.tables import ITEMS, SPLIT_INTERACTIONS, USERS
from data_exchange_center.workspace import Workspace, read_table

NEXT_CUT: Mapping[str, str] = {"early": "train", "train": "offline", "offline": "all"}
"""The cut whose additional rows judge what was fitted at a cut; nothing judges `all`."""


@dataclass(frozen=True)
class Events:
    """Events ordered by user, then (timestamp, position).

    Attributes:
        users, items: int64 [E], user and item rows: places in the two tables.
        labels: int8 [E]. values: float32 [E], the rating where the log has one, else the label.
        timestamps: int64 [E].
        user_count, item_count: sizes of the tables.
    """

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    values: np.ndarray
    timestamps: np.ndarray
    user_count: int
    item_count: int

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 [user_count + 1]: user u's events are `starts[u]:starts[u + 1]`."""
        return np.searchsorted(self.users, np.arange(self.user_count + 1))

    @cached_property
    def places(self) -> np.ndarray:
        """int64 [E]: how many earlier events the same user has."""
        return np.arange(len(self)) - self.starts[self.users]

    @cached_property
    def ages(self) -> np.ndarray:
        """int64 [E]: how many newer events the same user has."""
        return self.starts[self.users + 1] - 1 - np.arange(len(self))

    @cached_property
    def positives(self) -> Events:
        """Those with label 1."""
        return self.take(self.labels > 0)

    def take(self, chosen: np.ndarray) -> Events:
        """Some of the events, in the order chosen: bool [E] or places."""
        return Events(
            self.users[chosen],
            self.items[chosen],
            self.labels[chosen],
            self.values[chosen],
            self.timestamps[chosen],
            self.user_count,
            self.item_count,
        )

    @cached_property
    def item_events(self) -> np.ndarray:
        """int64 [item_count]: events per item."""
        return np.bincount(self.items, minlength=self.item_count)


@dataclass(frozen=True)
class KnownRows:
    """Everything that a channel may read at a cut, and what the next cut adds.

    Attributes:
        users, items: the canonical tables.
        events: the rows known at the cut; of a log of impressions only those that were chosen.
        later: the rows that the next cut adds; empty when there are none.
        weights: how history counts.
    """

    cut: str
    users: pa.Table
    items: pa.Table
    events: Events
    later: Events
    weights: HistoryWeights


def load_known_rows(settings: Settings, cut: str) -> KnownRows:
    """Reads tables and split of the workspace.

    Raises:
        DataError: the split was not made yet, a table breaks its schema, or nothing is known at the cut.
    """
    workspace = Workspace(settings)
    workspace.recall(cut)  # an unknown cut ends here
    users = USERS.validate(read_table(workspace.tables / "users.parquet"))
    items = ITEMS.validate(read_table(workspace.tables / "items.parquet"))
    rows = SPLIT_INTERACTIONS.validate(read_table(workspace.split / "interactions.parquet"))
    known = _known(rows, cut)
    if not known.any():
        raise DataError(f"no row is known at the cut {cut!r}; the split leaves it empty")
    later = _known(rows, NEXT_CUT[cut]) & ~known if cut in NEXT_CUT else np.zeros(len(known), bool)
    if read_dataset_info(workspace).labels in SHOWN:
        # an item that was shown and left alone was not interacted with: it is not history, and may be recommended again
        chosen = rows[c.LABEL].to_numpy() > 0
        known, later = known & chosen, later & chosen
    return KnownRows(
        cut=cut,
        users=users,
        items=items,
        events=_events(rows, known, users, items),
        later=_events(rows, later, users, items),
        weights=HistoryWeights(disliked=settings.recall.disliked, limit=settings.recall.history),
    )


def _known(rows: pa.Table, cut: str) -> np.ndarray:
    """[rows] bool: known at the cut."""
    if cut == "all":
        return np.ones(rows.num_rows, bool)
    if cut == "early":
        return rows["early"].to_numpy().astype(bool)
    parts = {"train": [c.TRAIN], "offline": [c.TRAIN, c.TEST]}[cut]
    return pc.is_in(rows[c.SPLIT], value_set=pa.array(parts)).to_numpy().astype(bool)


def _events(rows: pa.Table, chosen: np.ndarray, users: pa.Table, items: pa.Table) -> Events:
    table = rows.filter(pa.array(chosen))
    user = pc.index_in(table[c.USER_ID], value_set=users[c.USER_ID].combine_chunks()).to_numpy().astype(np.int64)
    item = pc.index_in(table[c.ITEM_ID], value_set=items[c.ITEM_ID].combine_chunks()).to_numpy().astype(np.int64)
    labels = table[c.LABEL].to_numpy().astype(np.int8)
    ratings = table[c.RATING].to_numpy().astype(np.float32)
    values = np.where(np.isnan(ratings), labels, ratings).astype(np.float32)
    timestamps = table[c.TIMESTAMP].to_numpy()
    order = np.lexsort((table[c.POSITION].to_numpy(), timestamps, user))
    return Events(user, item, labels, values, timestamps, users.num_rows, items.num_rows).take(order)
