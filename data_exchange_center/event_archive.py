"""Events on disk, for those who train on them: batches that are there whole or not at all, each event once.

    <store>/events/<scene>/batch-<first>-<last>/<day>.parquet

A batch is one folder, renamed into place when it is whole, with one file per UTC day of its events' own timestamps. An event that
comes late lies in a later batch under its own day; `received` says when it came. `position` is its place in the stream that it
came from: whoever archives again after a crash sees by it what is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError
from data_exchange_center.settings import Settings
from data_exchange_center.tables import first_of_each
from data_exchange_center.workspace import Workspace, atomic_folder, read_table, write_table

PREFIX = "batch-"
WIDTH = 20  # digits of a position's two numbers in a folder's name, so that names sort as positions do


@dataclass(frozen=True)
class Archived:
    """One event as it lies in the archive.

    Attributes:
        position: "<milliseconds>-<number>", its place in the stream.
        user_id, item_id: as the log declares them, int or str.
        timestamp: of the event, unix seconds. value: of a rating.
    """

    position: str
    event_id: str
    user_id: int | str
    item_id: int | str
    event: str
    value: float | None
    timestamp: int
    request_id: str | None


class EventArchive:
    """The archive of one scene. Several processes may read it; those that write agree among themselves who does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, events: Sequence[Archived]) -> Path | None:
        """Writes one batch; None when there is nothing to write.

        Raises:
            DataError: ids of two types, or a batch of the same positions is there already.
        """
        if not events:
            return None
        ordered = sorted(events, key=lambda event: order_of(event.position))
        table = _table(ordered)
        days = [_day(event.timestamp) for event in ordered]
        target = self.folder / f"{PREFIX}{_spelled(ordered[0].position)}-{_spelled(ordered[-1].position)}"
        with atomic_folder(target) as made:
            for day in sorted(set(days)):
                write_table(made / f"{day}.parquet", table.filter(pa.array([other == day for other in days])))
        return target

    def holds(self, positions: Iterable[str]) -> set[str]:
        """Which of these positions the archive has."""
        wanted = set(positions)
        if not wanted:
            return set()
        spelled = sorted(_spelled(position) for position in wanted)
        found: set[str] = set()
        for batch in self.batches():
            first, last = _bounds(batch)
            if first <= spelled[-1] and last >= spelled[0]:
                for file in sorted(batch.glob("*.parquet")):
                    found |= wanted.intersection(read_table(file, ["position"])["position"].to_pylist())
        return found

    def batches(self) -> list[Path]:
        """Whole batches, oldest first."""
        return sorted(path for path in self.folder.glob(f"{PREFIX}*") if path.is_dir())

    def days(self) -> list[str]:
        """Days that have events, YYYY-MM-DD, ascending."""
        return sorted({file.stem for batch in self.batches() for file in batch.glob("*.parquet")})

    def read(self, day: str) -> pa.Table:
        """The events of one day, whenever they came, by timestamp and then by position; no event_id twice."""
        parts = [read_table(file) for batch in self.batches() for file in batch.glob(f"{day}.parquet")]
        if not parts:
            raise DataError(f"{self.folder}: no events of {day}; there are {', '.join(self.days()) or 'none at all'}")
        table = pa.concat_tables(parts).sort_by([("timestamp", "ascending"), ("received", "ascending")])
        return first_of_each(table, c.EVENT_ID)


def archive_folder(settings: Settings) -> Path:
    """Where a scene's events are archived."""
    return Workspace(settings).root / "events" / settings.scene


def judged(event: str, value: float | None, positive_above: float) -> tuple[int, float | None] | None:
    """(label, rating or None) of an event as the log of interactions has it; None for an impression, which is no interaction.

    Args:
        event: its kind. value: of a rating.
        positive_above: a rating strictly above this is a positive.
    """
    if event == "impression":
        return None
    if event == "rating" and value is not None:
        return int(value > positive_above), float(value)
    return int(event in ("click", "like")), None


def order_of(position: str) -> tuple[int, int]:
    """A position as two numbers that compare as the stream orders."""
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number or 0)


def _spelled(position: str) -> str:
    milliseconds, number = order_of(position)
    return f"{milliseconds:0{WIDTH}d}.{number:0{WIDTH}d}"


def _bounds(batch: Path) -> tuple[str, str]:
    first, _, last = batch.name.removeprefix(PREFIX).partition("-")
    return first, last


def _day(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).date().isoformat()


def _table(events: Sequence[Archived]) -> pa.Table:
    columns: dict[str, Any] = {
        "position": pa.array([event.position for event in events], pa.string()),
        "received": pa.array([order_of(event.position)[0] for event in events], pa.int64()),
        "event_id": pa.array([event.event_id for event in events], pa.string()),
        "user_id": _ids("user_id", [event.user_id for event in events]),
        "item_id": _ids("item_id", [event.item_id for event in events]),
        "event": pa.array([event.event for event in events], pa.string()),
        "value": pa.array([event.value for event in events], pa.float32()),
        "timestamp": pa.array([event.timestamp for event in events], pa.int64()),
        "request_id": pa.array([event.request_id for event in events], pa.string()),
    }
    return pa.table(columns)


def _ids(name: str, values: list[int | str]) -> pa.Array:
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        raise DataError(f"events: {name} is a number in one event and a text in another", field=name)
    return pa.array(values, pa.string() if kinds == {str} else pa.int64())
