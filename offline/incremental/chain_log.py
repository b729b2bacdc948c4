"""The log of a chain as the daily job knows it: the history that it began with, and the days that were learned since.

    log/base.parquet    the history: user_id, item_id, timestamp, rating (null where the log has none), label, event_id

A day that is held or given up is not part of it: its events count for nobody until they are learned. Attributes of users and items
come from the dataset's own tables; who is not listed there gets a bare row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import DatasetInfo, write_dataset_info
from data_exchange_center.errors import DataError, DataUnavailable
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.tables import SPLIT_INTERACTIONS, cast_column
from data_exchange_center.workspace import Workspace, read_table, write_table
from offline.datasets.canonical import LATEST, assemble
from offline.datasets.registry import describe, load_dataset
from offline.incremental.days import DayArchive
from offline.incremental.state import STATE, load_state
from offline.preprocess.split import split_interactions

EVENT = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.RATING, c.LABEL)
NEW = "new"
SLACK_DAYS = 1


class ChainLog:
    """The log of the settings' dataset."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.workspace = settings, Workspace(settings)
        self.base = self.workspace.offline / "log" / "base.parquet"
        self.archive = DayArchive(self.workspace.days)
        self.state = self.workspace.incremental

    @cached_property
    def info(self) -> DatasetInfo:
        """Of the dataset, whose tables are made when they are not there."""
        return load_dataset(self.settings)

    def begun(self) -> bool:
        """Whether a first model is live."""
        return (self.state / STATE).exists()

    def learned_days(self) -> tuple[str, ...]:
        """Days that a promoted run has learned, ascending."""
        finished = load_state(self.state).finished.values()
        return tuple(sorted({date for outcome in finished for date in outcome.learned}))

    def events(self, days: Sequence[str]) -> pa.Table:
        """The history and these days, in their order."""
        return pa.concat_tables([read_table(self.base), *(self.of_day(date) for date in days)])

    def of_day(self, date: str) -> pa.Table:
        """The events of one archived day."""
        return self.as_events(read_table(self.archive.path(date)))

    def as_events(self, rows: pa.Table) -> pa.Table:
        """Rows of a day or a history as events, whatever else they hold.

        Raises:
            DataError: a column is missing or of a type that does not fit the dataset's.
        """
        kinds = {
            c.USER_ID: pa.int64() if self.info.user_id_type == "int64" else pa.string(),
            c.ITEM_ID: pa.int64() if self.info.item_id_type == "int64" else pa.string(),
            c.TIMESTAMP: pa.int64(),
            c.RATING: pa.float32(),
            c.LABEL: pa.int8(),
        }
        columns = {}
        for name in EVENT:
            if name == c.RATING and name not in rows.column_names:
                columns[name] = pa.chunked_array([pa.nulls(len(rows), kinds[name])])
            else:
                columns[name] = cast_column(rows, name, kinds[name])
        return pa.table(columns | {c.EVENT_ID: _ids(rows, columns)})

    def lay_out(self, run: Settings, known: pa.Table, new: pa.Table, part: str) -> int:
        """Writes the canonical tables and the split of a run's own workspace.

        Args:
            run: settings of that workspace.
            known, new: events. part: the split of the new ones: online, where the known ones are split by the settings'
                protocol, or test, where all known ones are train.

        Returns:
            How many known events there are: the row_id of the first new one.
        """
        tables, workspace = self.workspace.tables, Workspace(run)
        labels = self.info.labels  # makes the tables when they are not there
        marked = [
            events.append_column(NEW, pa.array(np.full(len(events), flag)))
            for events, flag in ((known, False), (new, True))
        ]
        events = pa.concat_tables(marked)
        users = read_table(tables / "users.parquet")
        seen = pc.is_in(users[c.USER_ID], value_set=pc.unique(events[c.USER_ID]))
        dataset = assemble(
            events,
            users.filter(seen),
            read_table(tables / "items.parquet"),
            labels=labels,
            place=lambda row: f"event {row}",
        )
        write_table(workspace.tables / "users.parquet", dataset.users)
        write_table(workspace.tables / "items.parquet", dataset.items)
        rows = dataset.interactions.drop_columns([NEW])
        fresh = dataset.interactions[NEW].to_numpy(zero_copy_only=False).astype(bool)
        write_dataset_info(workspace, describe(workspace.dataset, self.info.source, self.info.fingerprint, dataset))
        write_table(
            workspace.split / "interactions.parquet", SPLIT_INTERACTIONS.validate(_split(run, rows, fresh, part))
        )
        return int((~fresh).sum())


def check_events(events: pa.Table, date: str) -> None:
    """Refuses events without a user, an item or a time, and times that are no unix seconds or long after the day.

    Events of earlier days are late ones and welcome; a day may also end some hours later somewhere than it does in UTC.

    Raises:
        DataError: the first such row.
    """
    for name in (c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.LABEL):
        if events[name].null_count:
            raise DataError(f"row {pc.index(pc.is_null(events[name]), True).as_py()}: {name!r} is empty", field=name)
    times = events[c.TIMESTAMP].to_numpy()
    end = (np.datetime64(date, "s").astype(int) + (1 + SLACK_DAYS) * 86_400) if date else LATEST
    wrong = (times <= 0) | (times >= end)
    if wrong.any():
        row = int(np.argmax(wrong))
        says = f"after {date}" if 0 < times[row] < LATEST else "no unix seconds"
        raise DataError(
            f"row {row}: {c.TIMESTAMP!r} is {times[row]}, {says} ({int(wrong.sum())} such rows)", field=c.TIMESTAMP
        )


def _ids(rows: pa.Table, columns: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """The log's own event_id, or one made of user, item and time."""
    if c.EVENT_ID in rows.column_names:
        return pc.cast(rows[c.EVENT_ID], pa.string())
    parts = [pc.cast(columns[name], pa.string()) for name in (c.USER_ID, c.ITEM_ID, c.TIMESTAMP)]
    return pc.binary_join_element_wise(*parts, "|")


def _split(settings: Settings, rows: pa.Table, fresh: np.ndarray, part: str) -> pa.Table:
    """The rows with row_id, split and early; the new ones stand last."""
    if part == c.ONLINE:
        known = split_interactions(rows.filter(pa.array(~fresh)), settings.split)
    else:
        known = _marked(rows.filter(pa.array(~fresh)), 0, c.TRAIN, early=True)
    return pa.concat_tables([known, _marked(rows.filter(pa.array(fresh)), len(known), part, early=False)])


def _marked(rows: pa.Table, first: int, part: str, *, early: bool) -> pa.Table:
    numbers = pa.array(first + np.arange(len(rows), dtype=np.int64))
    made = rows.add_column(0, c.ROW_ID, numbers).append_column(c.SPLIT, pa.array([part] * len(rows), pa.string()))
    return made.append_column("early", pa.array(np.full(len(rows), early)))


def is_chain(settings: Settings) -> bool:
    """Whether the settings' scene recommends items to users, rather than scoring rows that come whole."""
    return any(feature.key and feature.entity == "user" for feature in load_spec(settings.features.spec).inputs)


def dataset_rows(settings: Settings, *, before: str = "", on: str = "") -> Path:
    """Writes the rows of the settings' own dataset before a day (UTC), or of one day, to a file for the daily job; returns it.

    Raises:
        DataUnavailable: there are none.
    """
    load_dataset(settings)
    workspace = Workspace(settings)
    events = read_table(workspace.tables / "interactions.parquet")
    dates = dates_of(events[c.TIMESTAMP].to_numpy())
    found = events.filter(pa.array(dates < before if before else dates == on))
    if not len(found):
        raise DataUnavailable(
            f"dataset {settings.dataset_name} has no rows {'before ' + before if before else 'on ' + on}: "
            f"its days are {min(dates)} to {max(dates)}"
        )
    path = workspace.raw / "days" / (f"before-{before}.parquet" if before else f"{on}.parquet")
    write_table(path, found.append_column(c.EVENT_ID, pc.cast(found[c.POSITION], pa.string())))
    return path


def dates_of(timestamps: np.ndarray) -> np.ndarray:
    """The day (UTC) of unix seconds, as YYYY-MM-DD."""
    return np.asarray(timestamps).astype("datetime64[s]").astype("datetime64[D]").astype(str)
