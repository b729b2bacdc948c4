"""The release's own tables, read when a store is away: the same profiles and raw features that were published from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.release import Release
from data_exchange_center.tables import RECENT
from online.stores.ports import FeatureRows, Id, UserProfile
from online.stores.stored_features import id_types, numpy_column, stored_column, stored_features


class ReleaseTables:
    """Tables of one release, each read on first use and kept.

    Args:
        user_vectors: float32 [users, D], in the order of the users table; the vector channel's user side.
    """

    def __init__(self, release: Release, spec: FeatureSpec, user_vectors: np.ndarray) -> None:
        self._release, self._spec, self._user_vectors = release, spec, user_vectors

    def profile(self, user_id: Id) -> UserProfile | None:
        """What the user store holds for this user; None when the release does not know the user."""
        place = _place(self._profiles[c.USER_ID], user_id)
        if place < 0:
            return None
        row: dict[str, Any] = self._profiles.slice(place, 1).to_pylist()[0]
        user_row = _place(self._users[c.USER_ID], user_id)
        return UserProfile(
            user_id=user_id,
            segment=row["segment"],
            last_timestamp=row["last_timestamp"],
            terms=tuple(row["terms"]),
            term_weights=np.array(row["term_weights"], np.float32),
            vector=np.array(self._user_vectors[user_row]) if user_row >= 0 else np.empty(0, np.float32),
            history=np.array(row["history"], np.int32),
            history_labels=np.array(row["history_labels"], np.int8),
            history_values=np.array(row.get("history_values") or row["history_labels"], np.float32),
            history_timestamps=np.array(row["history_timestamps"], np.int64),
            **{name: np.array(row.get(name) or (), np.int32) for name in RECENT},
        )

    def user_features(self, user_id: Id) -> FeatureRows:
        """The features that the feature store holds for this user (n = 1); an absent row for an unknown one."""
        return _rows(self._user_table, c.USER_ID, [user_id], self._spec.user_features)

    def item_features(self, item_ids: Sequence[Id]) -> FeatureRows:
        """The features that the feature store holds for these items, in the order asked."""
        return _rows(self._item_table, c.ITEM_ID, item_ids, self._spec.item_features)

    def any_user(self) -> Id | None:
        """Some user whom the release knows."""
        ids = self._users[c.USER_ID]
        return ids[0].as_py() if len(ids) else None

    @cached_property
    def _profiles(self) -> pa.Table:
        return self._release.table("user_profiles").combine_chunks()

    @cached_property
    def _users(self) -> pa.Table:
        return self._release.table("users", [c.USER_ID]).combine_chunks()

    @cached_property
    def _user_table(self) -> pa.Table:
        return self._release.table("user_features").combine_chunks()

    @cached_property
    def _item_table(self) -> pa.Table:
        return self._release.table("item_features").combine_chunks()


def _place(ids: pa.ChunkedArray, wanted: Id) -> int:
    return int(pc.index(ids, pa.scalar(wanted, ids.type)).as_py())


def _rows(table: pa.Table, key: str, ids: Sequence[Id], features: list[Feature]) -> FeatureRows:
    places = pc.index_in(pa.array(ids, table.schema.field(key).type), value_set=table[key].combine_chunks())
    found = table.take(places)  # a row of nulls, which become the declared defaults, for an id that is not there
    stored = stored_features(features, id_types(features, table))
    columns = {feature.name: numpy_column(feature, stored_column(feature, found[feature.name])) for feature in stored}
    return FeatureRows(columns, pc.fill_null(found[c.TIMESTAMP], 0).to_numpy().astype(np.int64))
