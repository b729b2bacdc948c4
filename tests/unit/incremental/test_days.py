"""Days, what of them is judged and replayed, and what waits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_exchange_center.errors import DataError
from offline.incremental.backlog import GivenUp, HeldDay, after_job
from offline.incremental.days import DayArchive, read_day, sample_of, split_day
from offline.incremental.replay import Replay


def table_of(rows: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows).astype(np.float32)
    return pa.table(
        {"label": labels, "x": random.random(rows), "event_id": [f"{seed}.{place}" for place in range(rows)]}
    )


def test_a_day_is_taken_in_once_and_does_not_change(tmp_path: Path) -> None:
    archive = DayArchive(tmp_path / "days")
    source = tmp_path / "given.parquet"
    pq.write_table(table_of(100), source)
    first = archive.archive("2026-01-02", source)
    assert first.rows == 100 and archive.archive("2026-01-02") == first == archive.archive("2026-01-02", source)
    assert archive.dates() == ["2026-01-02"]
    pq.write_table(table_of(100, 1), source)
    with pytest.raises(DataError, match="archived already, with other rows"):
        archive.archive("2026-01-02", source)
    pq.write_table(table_of(100, 1), archive.path("2026-01-02"))
    with pytest.raises(DataError, match="a day does not change"):
        archive.archive("2026-01-02")
    with pytest.raises(DataError, match="not there"):
        archive.archive("2026-01-03")


def test_a_day_that_is_refused_leaves_nothing_behind_and_can_be_given_again(tmp_path: Path) -> None:
    archive, source = DayArchive(tmp_path / "days"), tmp_path / "given.parquet"

    def check(rows: pa.Table, date: str) -> None:
        if "x" not in rows.column_names:
            raise DataError(f"{date}: no x")

    pq.write_table(table_of(100).drop_columns(["x"]), source)
    with pytest.raises(DataError, match="2026-01-02: no x"):
        archive.archive("2026-01-02", source, check)
    assert not archive.path("2026-01-02").exists()
    pq.write_table(table_of(100), source)
    assert archive.archive("2026-01-02", source, check).rows == 100


@pytest.mark.parametrize("date", ["2026-1-2", "../x", "yesterday", "20260102", ""])
def test_a_date_is_a_date(tmp_path: Path, date: str) -> None:
    with pytest.raises(DataError, match="date"):
        DayArchive(tmp_path).path(date)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (table_of(50).drop_columns(["label"]), "no column 'label'"),
        (table_of(2).set_column(0, "label", pa.array([1.0, 0.5])), "row 1: label 0.5"),
        (table_of(2).set_column(0, "label", pa.array([None, 1.0])), "row 0: label None"),
        (table_of(1), "1 rows are no day"),
        (table_of(2).set_column(2, "event_id", pa.array(["a", None])), "row 1: event_id is empty"),
    ],
)
def test_rows_that_are_no_day_are_named(tmp_path: Path, table: pa.Table, message: str) -> None:
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=message):
        read_day(tmp_path / "rows.parquet")


def test_a_repeated_event_counts_once(tmp_path: Path) -> None:
    table = table_of(50)
    pq.write_table(pa.concat_tables([table, table.slice(10, 20)]), tmp_path / "rows.parquet")
    assert read_day(tmp_path / "rows.parquet").equals(table)


def test_which_rows_validate_depends_on_nothing_but_the_event() -> None:
    table = table_of(5000)
    train, validation = split_day(table, 0.2)
    assert len(train) + len(validation) == 5000 and 900 < len(validation) < 1100
    _, other = split_day(table.take(np.random.default_rng(0).permutation(5000)).slice(0, 2500), 0.2)
    assert set(other["event_id"].to_pylist()) <= set(validation["event_id"].to_pylist())
    for share in (1e-9, 1 - 1e-9):
        train, validation = split_day(table_of(2), share)
        assert len(train) == len(validation) == 1


def test_replayed_rows_are_of_fixed_size_and_of_the_newest_promoted_days(tmp_path: Path) -> None:
    replay = Replay(tmp_path, days=2, rows=30)
    dates = ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert replay.read([]) is None
    for seed, date in enumerate(dates):
        replay.keep(date, table_of(100 if seed else 10, seed))
    read = replay.read(dates)
    assert (
        read is not None
        and len(read) == 60
        and {name.split(".")[0] for name in read["event_id"].to_pylist()} == {"1", "2"}
    )
    assert sample_of(table_of(10), 30).equals(table_of(10))
    replay.forget(replay.chosen(dates))
    assert sorted(path.stem for path in tmp_path.iterdir()) == dates[1:]


def held(date: str, rows: int = 10) -> HeldDay:
    return HeldDay(date, rows, 1, ("bad",))


def test_a_day_that_fails_twice_is_quarantined_and_one_that_is_learned_leaves() -> None:
    waiting, gone = after_job([], [], [held("2026-01-01"), held("2026-01-02")], "2026-01-02", 10, 1000)
    assert [day.date for day in waiting] == ["2026-01-01", "2026-01-02"] and not gone
    waiting, gone = after_job(waiting, ["2026-01-02"], [held("2026-01-01")], "2026-01-03", 10, 1000)
    assert not waiting and gone == [GivenUp("2026-01-01", 10, "quarantined: failed 2 times", ("bad",))]


def test_the_backlog_has_limits_of_age_and_size() -> None:
    days = [held("2026-01-01"), held("2026-01-05"), held("2026-01-06"), held("2026-01-07")]
    waiting, gone = after_job(days, [], [], "2026-01-08", 5, 20)
    assert [day.date for day in waiting] == ["2026-01-06", "2026-01-07"]
    assert [(day.date, day.why) for day in gone] == [
        ("2026-01-01", "older than 5 days"),
        ("2026-01-05", "more rows than may wait"),
    ]
