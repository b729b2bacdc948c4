"""What the release's own tables say a request should have been scored with: the offline side of the parity check.

Nothing here goes through a store or through the serving code: features are read row by row from the release's Parquet files
and recall scores come from its arrays. What users did since is counted as offline would count it (offline/preprocess/replay.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.feature_spec import Feature
from data_exchange_center.recall_scores import NOBODY, RecallArrays, UserTaste, tastes
from data_exchange_center.release import Release
from online.stores.ports import RecentEvent
from online.stores.recent_events import RECENT_KEPT

if TYPE_CHECKING:
    from offline.preprocess.replay import OfflineReplay

Id = int | str

_DTYPES: dict[str, Any] = {"int64": np.int64, "float32": np.float32, "string": object}


class OfflineReference:
    """The graph's inputs for any known user and items, from the release's tables."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.spec = release.spec()
        self.arrays = RecallArrays.open(release)
        items = release.table("items")
        self.items = items
        self.item_ids: list[Id] = items[c.ITEM_ID].to_pylist()
        self.item_rows = {item: row for row, item in enumerate(self.item_ids)}
        self._profiles = release.table("user_profiles").combine_chunks()
        self.user_ids: list[Id] = self._profiles[c.USER_ID].to_pylist()
        self._profile_rows = {user: row for row, user in enumerate(self.user_ids)}
        vector_rows = {user: row for row, user in enumerate(release.table("users", [c.USER_ID])[c.USER_ID].to_pylist())}
        self._vector_rows = [vector_rows[user] for user in self.user_ids]
        self._users = release.table("user_features").combine_chunks()
        self._user_rows = {user: row for row, user in enumerate(self._users[c.USER_ID].to_pylist())}
        self._items = release.table("item_features").combine_chunks()
        self._since: dict[Id, list[RecentEvent]] = {}
        self._accepted: dict[Id, set[Id]] = {}
        self._last_replay: tuple[Id, tuple[RecentEvent, ...], dict[str, Any]] = ("", (), {})
        self._feature_rows = {item: row for row, item in enumerate(self._items[c.ITEM_ID].to_pylist())}

    def follow(self, user: Id, accepted: Sequence[RecentEvent], now: int | None) -> None:
        """From here on this user is seen as of these events.

        Args:
            accepted: every event of the user that the stores had accepted; those that the release knows are left out again.
            now: the moment of the request, if it named one: later events do not count.
        """
        row = self._profile_rows.get(user)
        known: set[tuple[Id, int]] = set()
        if row is not None:
            items = [self.item_ids[item] for item in self._profiles["history"][row].as_py()]
            known = set(zip(items, self._profiles["history_timestamps"][row].as_py(), strict=True))
        self._since[user] = [
            event
            for event in accepted
            if (event.item_id, event.timestamp) not in known and (now is None or event.timestamp <= now)
        ]
        self._accepted[user] = {event.item_id for event in accepted}

    def follows(self, user: Id) -> bool:
        """Whether this user is seen as of events that the release does not know."""
        return bool(self._since.get(user))

    def taste(self, user: Id) -> UserTaste:
        """What recall reads of a user; of one whom the release does not know only what happened since."""
        row = self._profile_rows.get(user)
        if row is None:
            known, times = NOBODY, []
        else:
            vector = np.asarray(self.arrays.vectors.user_vectors[self._vector_rows[row]])
            known = tastes(self._profiles.slice(row, 1), vector[None])[0]
            times = self._profiles["history_timestamps"][row].as_py()
        since = [event for event in self._since.get(user, ()) if event.item_id in self.item_rows]
        if not since:
            return known
        rows = [self.item_rows[event.item_id] for event in since]
        every = [
            *zip(
                times, known.history.tolist(), known.history_labels.tolist(), known.history_values.tolist(), strict=True
            ),
            *((event.timestamp, item, event.label, event.value) for event, item in zip(since, rows, strict=True)),
        ]
        every.sort(key=lambda event: event[0])
        _, history, labels, values = zip(*every, strict=True)
        return replace(
            known,
            history=np.array(history, np.int32),
            history_labels=np.array(labels, np.int8),
            history_values=np.array(values, np.float32),
        )

    def last_timestamp(self, user: Id) -> int:
        """Unix seconds of the user's last event that the release knows."""
        return int(self._profiles["last_timestamp"][self._profile_rows[user]].as_py())

    def eligible(self, user: Id, body: dict[str, Any]) -> np.ndarray:
        """Bool [items]: what a list for this request may hold, by everything that the release knows."""
        filters = body.get("filters", {})
        wanted, year = set(filters.get("genres", ())), filters.get("year", {})
        eligible = np.ones(len(self.item_ids), bool)
        if wanted:
            eligible &= np.array([bool(wanted.intersection(terms or ())) for terms in self._terms])
        if year:
            years = np.array(self.items[c.YEAR].to_pylist() if c.YEAR in self.items.column_names else 0)
            eligible &= (years > 0) & (years >= year.get("gte", 0)) & (years <= year.get("lte", 9999))
        eligible[self.taste(user).history] = False
        eligible[[self.item_rows[item] for item in self._accepted.get(user, ()) if item in self.item_rows]] = False
        eligible[[self.item_rows[item] for item in body.get("exclude", ()) if item in self.item_rows]] = False
        return eligible

    @property
    def _counts_events(self) -> bool:
        """Whether user features of this release follow what happens."""
        return "tables/item_standing.parquet" in self.release.manifest["files"]

    def _replayed(self, user: Id, events: tuple[RecentEvent, ...]) -> dict[str, Any]:
        if self._last_replay[:2] != (user, events):
            self._last_replay = (user, events, self._replay.features(user, events))
        return self._last_replay[2]

    @cached_property
    def _replay(self) -> OfflineReplay:
        from offline.preprocess.replay import OfflineReplay  # its engine takes long to import

        return OfflineReplay(self.release, self.spec, RECENT_KEPT)

    @cached_property
    def _terms(self) -> list[list[str] | None]:
        has_terms = c.TERMS in self.items.column_names
        return self.items[c.TERMS].to_pylist() if has_terms else [None] * len(self.item_ids)

    def inputs(self, user: Id, item_ids: Sequence[Id], now: int) -> dict[str, np.ndarray]:
        """Every input of the model: [1, ...] for the user and the context, [N, ...] for items and candidates."""
        of_user = self._rows(self._users, self._user_rows, [user])
        if self.follows(user) and self._counts_events:
            of_user = [of_user[0] | self._replayed(user, tuple(self._since[user]))]
        of_items = self._rows(self._items, self._feature_rows, item_ids)
        recall = self.arrays.scores(self.taste(user), np.array([self.item_rows[item] for item in item_ids], np.int32))
        made: dict[str, np.ndarray] = {}
        for feature in self.spec.inputs:
            if feature.entity == "candidate":
                made[feature.name] = recall[feature.name]
            elif feature.entity == "context":
                made[feature.name] = np.array([now], _DTYPES[feature.dtype])
            elif feature.key:
                keys: Sequence[Id] = [user] if feature.entity == "user" else item_ids
                made[feature.name] = np.array(keys, object if isinstance(keys[0], str) else np.int64)
            else:
                table, rows = (self._users, of_user) if feature.entity == "user" else (self._items, of_items)
                made[feature.name] = padded(feature, table.schema.field(feature.name).type, rows)
        return made

    def _rows(self, table: pa.Table, places: dict[Id, int], ids: Sequence[Id]) -> list[dict[str, Any]]:
        known = [places.get(one) for one in ids]
        present = pa.array([place for place in known if place is not None], pa.int64())  # none of them, even
        taken = iter(table.take(present).to_pylist())
        return [next(taken) if place is not None else {} for place in known]


def padded(feature: Feature, kind: pa.DataType, rows: list[dict[str, Any]]) -> np.ndarray:
    """One feature of these rows: the declared default for what is missing, lists cut and padded at the end. [n] or [n, length]."""
    element = kind.value_type if pa.types.is_list(kind) else kind
    dtype = (
        _DTYPES["string" if pa.types.is_string(element) else "int64"]
        if feature.dtype == "id"
        else _DTYPES[feature.dtype]
    )
    missing: Any = feature.missing
    if dtype is object and feature.default is None:
        missing = ""
    if not feature.is_list:
        return np.array([missing if row.get(feature.name) is None else row[feature.name] for row in rows], dtype)
    made = np.empty((len(rows), feature.length), dtype)
    for place, row in enumerate(rows):
        values = [missing if value is None else value for value in (row.get(feature.name) or [])[: feature.length]]
        made[place] = values + [missing] * (feature.length - len(values))
    return made
