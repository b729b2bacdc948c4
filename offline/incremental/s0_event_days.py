"""Makes the rows of one day, for the daily job, from the events that the server's users sent: days/<date>/rows.parquet.

The log decides what its rows are: where every row is something shown (labels `impressions` and `outcome`), impressions become rows
with the answers as labels; else what users did becomes rows. Run it when answers to the day's last impressions can no longer come
(`events.answer_hours` after midnight UTC) and the event worker has archived them. A day that was made does not change; events that
come later are part of the day that is made next, for `events.late_days`.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from datetime import date as Date
from typing import Any

import pyarrow as pa

from data_exchange_center.dataset_info import SHOWN, read_dataset_info
from data_exchange_center.errors import DataUnavailable
from data_exchange_center.event_archive import EventArchive, archive_folder
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, read_table, write_table
from offline.incremental.days import DayArchive, checked_date
from offline.incremental.feedback_rows import Kind, events_in, feedback_rows


def make_day(settings: Settings, date: str, kind: Kind | None = None) -> dict[str, Any]:
    """Writes the rows of a day unless they are there.

    Args:
        date: YYYY-MM-DD, in UTC.
        kind: of the rows; by default as the log's labels say.

    Returns:
        date, kind, rows, positives, what they are made of, path, and `made`: false when the day was there.

    Raises:
        DataUnavailable: nothing happened on the day, as far as the archive knows.
    """
    chosen, archive = settings.events, EventArchive(archive_folder(settings))
    days = DayArchive(Workspace(settings).days)
    path, day = days.path(date), Date.fromisoformat(date)
    kind = kind or kind_of(settings)
    if path.exists():
        return {"date": date, "kind": kind, **_size(read_table(path)), "path": str(path), "made": False}
    first, end = (
        (day - timedelta(days=chosen.late_days)).isoformat(),
        datetime(day.year, day.month, day.day, tzinfo=UTC),
    )
    until = int((end + timedelta(days=1)).timestamp())
    last = datetime.fromtimestamp(until + chosen.answer_hours * 3600, UTC).date().isoformat()
    wanted = [name for name in archive.days() if first <= name <= last]
    # answers to impressions of the days before were used with them, and so were those that answered early today
    used = {event for name in days.dates() if first <= name for event in events_in(read_table(days.path(name)))}
    made = None
    if any(name <= date for name in wanted):
        made = feedback_rows(
            pa.concat_tables([archive.read(name) for name in wanted]),
            kind,
            until=until,
            used=used,
            answer_seconds=chosen.answer_hours * 3600,
            positive_above=settings.data.positive_above,
        )
    if made is None or not len(made.table):
        raise DataUnavailable(f"{archive.folder}: no new events up to {date}; has the event worker run?")
    write_table(path, made.table)
    return {"date": date, "kind": kind, **_size(made.table), **made.counts, "path": str(path), "made": True}


def kind_of(settings: Settings) -> Kind:
    """What the rows of the settings' log are."""
    return "exposures" if read_dataset_info(Workspace(settings)).labels in SHOWN else "interactions"


def _size(table: pa.Table) -> dict[str, int]:
    return {"rows": len(table), "positives": sum(table["label"].to_pylist())}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser((__doc__ or "").strip())
    options.add_argument("--date", type=checked_date, required=True, help="the day, YYYY-MM-DD")
    options.add_argument(
        "--rows", choices=("interactions", "exposures"), help="what becomes rows; by default as the log's"
    )

    def step(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
        return make_day(settings, arguments.date, arguments.rows)

    run_step("s0_event_days", options, step, argv)


if __name__ == "__main__":
    main()
