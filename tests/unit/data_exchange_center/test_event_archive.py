"""The archive of events: whole batches, days by the events' own time, each event once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError
from data_exchange_center.event_archive import Archived, EventArchive

DAY = 86_400


def event(number: int, timestamp: int = 0, user: int | str = 1, position: str = "") -> Archived:
    return Archived(position or f"{1000 + number}-0", f"e{number}", user, 7, "click", None, timestamp, None)


def test_events_lie_under_the_day_of_their_own_time_late_ones_too(tmp_path: Path) -> None:
    archive = EventArchive(tmp_path)
    archive.add([event(1, 10), event(2, DAY + 5)])
    archive.add([event(3, 5)])
    assert archive.days() == ["1970-01-01", "1970-01-02"]
    assert archive.read("1970-01-01")["event_id"].to_pylist() == ["e3", "e1"]
    assert archive.read("1970-01-01")["received"].to_pylist() == [1003, 1001]
    with pytest.raises(DataError, match="no events of 1970-02-01; there are 1970-01-01, 1970-01-02"):
        archive.read("1970-02-01")


def test_an_event_that_came_twice_is_read_once(tmp_path: Path) -> None:
    archive = EventArchive(tmp_path)
    archive.add([event(1, 10)])
    archive.add([event(1, 10, position="9000-0"), event(2, 11)])
    assert archive.read("1970-01-01")["event_id"].to_pylist() == ["e1", "e2"]


def test_ids_of_two_types_in_one_batch_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    archive = EventArchive(tmp_path)
    with pytest.raises(DataError, match="user_id is a number in one event and a text in another"):
        archive.add([event(1), event(2, user="two")])
    assert archive.batches() == [] and archive.days() == []


def test_half_a_batch_is_not_there(tmp_path: Path) -> None:
    archive = EventArchive(tmp_path)
    (tmp_path / ".batch-x.tmp").mkdir()
    (tmp_path / ".batch-x.tmp" / "1970-01-01.parquet").write_bytes(b"half")
    archive.add([event(1)])
    assert archive.days() == ["1970-01-01"] and archive.holds(["1001-0", "5-0"]) == {"1001-0"}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), unique=True, min_size=1, max_size=40), st.integers(1, 7)
)
def test_it_holds_exactly_what_was_added(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]], size: int
) -> None:
    archive = EventArchive(tmp_path_factory.mktemp("archive"))
    positions = [f"{milliseconds}-{number}" for milliseconds, number in places]
    kept = positions[::2]
    for start in range(0, len(kept), size):
        archive.add([event(start + n, position=position) for n, position in enumerate(kept[start : start + size])])
    assert archive.holds(positions) == set(kept)
