"""What the release's own tables say a request should have been scored with: the offline side of the parity check.

Nothing here goes through a store or through the serving code: features are read row by row from the release's Parquet files
and recall scores come from its arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.feature_spec import Feature
from data_exchange_center.recall_scores import NOBODY, RecallArrays, UserTaste, tastes
from data_exchange_center.release import Release

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
        self._feature_rows = {item: row for row, item in enumerate(self._items[c.ITEM_ID].to_pylist())}

    def taste(self, user: Id) -> UserTaste:
        """What recall reads of a user; nothing of one whom the release does not know."""
        row = self._profile_rows.get(user)
        if row is None:
            return NOBODY
        vector = np.asarray(self.arrays.vectors.user_vectors[self._vector_rows[row]])
        return tastes(self._profiles.slice(row, 1), vector[None])[0]

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
        eligible[[self.item_rows[item] for item in body.get("exclude", ()) if item in self.item_rows]] = False
        return eligible

    @cached_property
    def _terms(self) -> list[list[str] | None]:
        has_terms = c.TERMS in self.items.column_names
        return self.items[c.TERMS].to_pylist() if has_terms else [None] * len(self.item_ids)

    def inputs(self, user: Id, item_ids: Sequence[Id], now: int) -> dict[str, np.ndarray]:
        """Every input of the model: [1, ...] for the user and the context, [N, ...] for items and candidates."""
        of_user = self._rows(self._users, self._user_rows, [user])
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
        taken = iter(table.take([place for place in known if place is not None]).to_pylist())
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
