"""The days of a scene's log, one folder each:

    days/<YYYY-MM-DD>/rows.parquet   what the log holds of the day: the scene's raw columns, label, timestamp, event_id
                      day.json       rows, positives and SHA-256 as they were archived (written last)

A day that was archived does not change. Which of its rows validate is decided by their event_id: the same rows always do, wherever
they stand and whatever else the day holds.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date as Date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError
from data_exchange_center.tables import first_of_each
from data_exchange_center.workspace import atomic_path, read_json, read_table, sha256, write_json

log = logging.getLogger("marquee")

ROWS, DAY = "rows.parquet", "day.json"
FEWEST = 2  # rows of a day: one to learn from, one to judge by


@dataclass(frozen=True)
class ArchivedDay:
    """A day as it was archived: its date, rows, positives, and the SHA-256 of its file."""

    date: str
    rows: int
    positives: int
    sha256: str


class DayArchive:
    """The archive below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, date: str) -> Path:
        """File of a day's rows."""
        return self.folder / checked_date(date) / ROWS

    def archive(
        self, date: str, source: Path | None = None, check: Callable[[pa.Table, str], object] = lambda rows, date: None
    ) -> ArchivedDay:
        """Takes a day in, once. Rows that are refused leave nothing behind, so that corrected ones can be given.

        Args:
            source: Parquet file of its rows; None when it lies in the archive already.
            check: raises for rows that the scene cannot learn from.

        Raises:
            DataError: no rows, labels other than 0 and 1, or rows that differ from those that were archived before.
        """
        path, about = self.path(date), self.folder / date / DAY
        if source is not None and source.resolve() != path.resolve():
            if path.exists() and about.exists() and sha256(_there(source)) != read_json(about)["sha256"]:
                raise DataError(f"{date} is archived already, with other rows than {source}; a day does not change")
            check(read_day(source), date)
            with atomic_path(path) as temporary:
                shutil.copyfile(source, temporary)
        table, digest = read_day(path), sha256(path)
        check(table, date)
        found = ArchivedDay(date, len(table), int(pc.sum(table[c.LABEL]).as_py()), digest)
        if about.exists() and read_json(about)["sha256"] != digest:
            raise DataError(f"{path}: not the rows that {about} was written for; a day does not change")
        write_json(about, asdict(found))
        return found

    def dates(self) -> list[str]:
        """Days that have rows, ascending."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{ROWS}"))


def checked_date(text: str) -> str:
    """The date as it names folders; DataError when it is none."""
    try:
        found = Date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise DataError(f"{text!r} is no date: write YYYY-MM-DD", field="date") from error
    if found != text:
        raise DataError(f"{text!r}: write the date as {found}", field="date")
    return text


def read_day(path: Path) -> pa.Table:
    """The rows of a day, each event once, the first that is there.

    Raises:
        DataError: fewer rows than two, an empty event_id, or a label that is missing or neither 0 nor 1.
    """
    table = read_table(_there(path))
    if c.LABEL not in table.column_names:
        raise DataError(f"{path}: has no column {c.LABEL!r} (it has {', '.join(table.column_names)})", field=c.LABEL)
    labels = table[c.LABEL]
    wrong = pc.fill_null(pc.invert(pc.is_in(labels, pa.array([0, 1]).cast(labels.type))), True)
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise DataError(f"{path}: row {row}: label {labels[row].as_py()!r} is neither 0 nor 1", field=c.LABEL)
    if c.EVENT_ID in table.column_names:
        unnamed = pc.is_null(table[c.EVENT_ID])
        if pc.any(unnamed).as_py():
            raise DataError(f"{path}: row {pc.index(unnamed, True).as_py()}: {c.EVENT_ID} is empty", field=c.EVENT_ID)
        first = first_of_each(table, c.EVENT_ID)
        if len(first) < len(table):
            log.warning("  %s: %d rows repeat an event_id and are left out", path, len(table) - len(first))
            table = first
    if len(table) < FEWEST:
        raise DataError(f"{path}: {len(table)} rows are no day to learn from and to judge by")
    return table


def _there(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: the day's rows are not there")
    return path


def split_day(table: pa.Table, share: float) -> tuple[pa.Table, pa.Table]:
    """(rows to learn from, rows to judge by): about that share of them, by their event_id; at least one each."""
    drawn = chances(table, "validation")
    chosen = drawn < share
    if not chosen.any() or chosen.all():
        chosen = drawn == drawn.min() if not chosen.any() else drawn != drawn.max()
    return table.filter(pa.array(~chosen)), table.filter(pa.array(chosen))


def sample_of(table: pa.Table, size: int) -> pa.Table:
    """At most so many rows, chosen by their event_id, in their order."""
    if len(table) <= size:
        return table
    return table.take(np.sort(np.argsort(chances(table, "replay"), kind="stable")[:size]))


def chances(table: pa.Table, purpose: str) -> np.ndarray:
    """A number in [0, 1) of each row, by its event_id (its place, where it has none) and the purpose; float64 [rows]."""
    names: Sequence[object] = (
        table[c.EVENT_ID].to_pylist() if c.EVENT_ID in table.column_names else list(range(len(table)))
    )
    digests = (hashlib.blake2b(f"{purpose}|{name}".encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), ">u8") / 2.0**64
