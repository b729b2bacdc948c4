"""User features as offline would compute them had the log gone on: the parity check's side of events that came after a release.

The log is the one that the release holds in its user profiles. It goes through the offline expressions as every log does; the
user's later events are put behind it, judged by the release's own table, and the same expressions answer for the user after them.
Nothing here is shared with serving but what an event is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.axes import axes_of, term_length
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.release import Release
from offline.preprocess.engine import connect, prepared, refill, register
from offline.preprocess.expressions import USER_FEATURES, judged_events, user_features, user_timeline
from offline.preprocess.feature_columns import entity_columns, typed

Id = int | str
OF_LOG = ("user_global_rate", "user_global_value")
_EVENT = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP, "label", "value", "item_rate", "item_value", "popularity")


class Happened(Protocol):
    """An interaction that came after the release: `value` is the rating, else the label; `timestamp` in unix seconds."""

    @property
    def item_id(self) -> Id: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def label(self) -> int: ...

    @property
    def value(self) -> float: ...


class OfflineReplay:
    """The log of one release, to be continued by one user's events at a time.

    Args:
        most: events that continue it at most.
    """

    def __init__(self, release: Release, spec: FeatureSpec, most: int) -> None:
        engine = self._engine = connect("duckdb")
        self._length = int(release.manifest["settings"]["features"]["history_length"])
        items = release.table("items").combine_chunks()
        self._items, self._axes = items, axes_of(items, term_length(spec))
        profiles, log = release.table("user_profiles"), log_of(release)
        self._most = max(pc.list_value_length(profiles["history"]).to_pylist(), default=0) + most
        self._judged = engine.create_table("judged", judged_events(register(engine, "log", log)))
        standing = release.table("item_standing")
        self._standing = {row[c.ITEM_ID]: row for row in standing.to_pylist()}
        self._global = (float(standing["global_rate"][0].as_py()), float(standing["global_value"][0].as_py()))
        known = [one for one in spec.user_features if one.name in USER_FEATURES and one.name not in OF_LOG]
        self._columns = entity_columns(c.USER_ID, known, USER_FEATURES, ())
        self._answer = self._prepared()

    def features(self, user: Id, events: Sequence[Happened]) -> dict[str, Any]:
        """The user's computed features just after these events. What they say of the log as a whole stays as in the release's
        row, and is given here for a user without one.

        Args:
            events: at least one, none of which the release knows.
        """
        added = pa.Table.from_pylist([self._judged_row(user, event) for event in events], self._schema())
        one = self._judged.filter(self._judged[c.USER_ID] == user).select(list(_EVENT)).to_pyarrow()
        together = pa.concat_tables([one.cast(added.schema), added])
        unlisted = [event.item_id for event in events if event.item_id not in self._standing]
        refill(self._engine, "continued", together)
        refill(self._engine, "catalog", self._catalog(unlisted))
        row: dict[str, Any] = self._answer().to_pylist()[0]
        return row if one.num_rows else row | dict(zip(OF_LOG, self._global, strict=True))

    def _prepared(self) -> Callable[[], pa.Table]:
        """The user's row, of whatever the tables `continued` and `catalog` hold."""
        judged = register(self._engine, "continued", self._schema().empty_table())
        timeline = user_timeline(
            judged,
            register(self._engine, "catalog", self._catalog(())),
            axes=self._axes,
            history_length=self._length,
            busiest=self._most,
            wanted=self._columns.computed,
        )
        probe = judged.group_by(c.USER_ID).aggregate(**{c.TIMESTAMP: judged[c.TIMESTAMP].max() + 1})
        found = user_features(timeline, probe)
        return prepared(self._engine, found.select(**typed(found, self._columns)))

    def _judged_row(self, user: Id, event: Happened) -> dict[str, Any]:
        rate, value = self._global
        unknown = {"rate": units(rate), "value": units(value), "popularity": 0}
        standing = self._standing.get(event.item_id, unknown)
        return {
            c.USER_ID: user,
            c.ITEM_ID: event.item_id,
            c.TIMESTAMP: event.timestamp,
            "label": event.label,
            "value": units(float(np.float32(event.value))),
            "item_rate": standing["rate"],
            "item_value": standing["value"],
            "popularity": standing["popularity"],
        }

    def _schema(self) -> pa.Schema:
        ids = self._judged.schema().to_pyarrow()
        return pa.schema([ids.field(name) if name in (c.USER_ID, c.ITEM_ID) else (name, pa.int64()) for name in _EVENT])

    def _catalog(self, unlisted: Sequence[Id]) -> pa.Table:
        """The items table with a bare row for each item that only events name, as reading a log makes one."""
        names = [name for name in (c.ITEM_ID, c.TERMS, c.YEAR) if name in self._items.column_names]
        bare: dict[str, Any] = {c.TERMS: [], c.YEAR: 0}
        rows = [{c.ITEM_ID: item, **{name: bare[name] for name in names[1:]}} for item in dict.fromkeys(unlisted)]
        items = self._items.select(names)
        return pa.concat_tables([items, pa.Table.from_pylist(rows, items.schema)])


def units(value: float) -> int:
    """A number in units of 1/1024, rounded half away from zero."""
    return int(np.sign(value) * np.floor(abs(value) * 1024 + 0.5))


def log_of(release: Release) -> pa.Table:
    """Every event that a release knows, as the log of interactions had it."""
    profiles = release.table("user_profiles").combine_chunks()
    lengths = pc.list_value_length(profiles["history"]).to_numpy()
    users = profiles[c.USER_ID].take(pa.array(np.repeat(np.arange(profiles.num_rows), lengths)))
    rows = pc.list_flatten(profiles["history"])
    values = profiles["history_values"] if "history_values" in profiles.column_names else profiles["history_labels"]
    return pa.table(
        {
            c.USER_ID: users,
            c.ITEM_ID: release.table("items")[c.ITEM_ID].combine_chunks().take(rows.combine_chunks()),
            c.TIMESTAMP: pc.list_flatten(profiles["history_timestamps"]),
            c.LABEL: pc.list_flatten(profiles["history_labels"]),
            c.RATING: pc.list_flatten(values).cast(pa.float32()),
        }
    )
