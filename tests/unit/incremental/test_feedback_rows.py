"""Days made of events: impressions with their answers, late and repeated events, and no event used twice."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.errors import DataUnavailable
from data_exchange_center.event_archive import Archived, EventArchive, archive_folder
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_table
from offline.incremental.feedback_rows import events_in
from offline.incremental.s0_event_days import main, make_day
from tests.factories import make_settings

DAY = 86_400
FIRST, SECOND = "1970-01-11", "1970-01-12"
AT = 10 * DAY  # when the first day begins
_numbers = count(1)


class Site:
    """An archive that events come into."""

    def __init__(self, folder: Path, **values: object) -> None:
        self.settings: Settings = make_settings(folder, **{"events.answer_hours": 1.0, **values})
        self.archive = EventArchive(archive_folder(self.settings))

    def tell(self, *events: tuple[str, int, int, str | None], value: float | None = None, user: Any = 1) -> list[str]:
        """Archives (kind, item, timestamp, request) as one batch; returns the events' ids."""
        made = [
            Archived(f"{next(_numbers)}-0", f"e{next(_numbers)}", user, item, kind, value, at, request)
            for kind, item, at, request in events
        ]
        self.archive.add(made)
        return [one.event_id for one in made]

    def rows(self, date: str, kind: Any = "exposures") -> list[tuple[int, int, int, float | None]]:
        """(item, seconds into the first day, label, rating) of a day's rows."""
        table = read_table(Path(make_day(self.settings, date, kind)["path"]))
        columns = (table[name].to_pylist() for name in ("item_id", "timestamp", "label", "rating"))
        return [(item, at - AT, label, rating) for item, at, label, rating in zip(*columns, strict=True)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_click_answers_the_impression_of_its_request_and_the_others_are_negatives(site: Site) -> None:
    site.tell(*(("impression", item, AT + 5, "a") for item in (1, 2, 3)), ("impression", 2, AT + 9, "b"))
    site.tell(("click", 2, AT + 60, "a"))
    assert site.rows(FIRST) == [(1, 5, 0, None), (2, 5, 1, None), (3, 5, 0, None), (2, 9, 0, None)]


def test_an_answer_comes_after_its_impression_and_in_time(site: Site) -> None:
    site.tell(*(("impression", item, AT + 100, "a") for item in (1, 2, 3)))
    site.tell(("click", 1, AT + 99, "a"), ("click", 2, AT + 100 + 3600, "a"), ("click", 3, AT + 101 + 3600, "a"))
    assert site.rows(FIRST) == [
        (1, 99, 1, None),  # answers nothing: rows of their own
        (1, 100, 0, None),
        (2, 100, 1, None),
        (3, 100, 0, None),
        (3, 3701, 1, None),
    ]


def test_the_last_word_counts_and_brings_its_rating(site: Site) -> None:
    site.tell(("impression", 1, AT + 5, "a"), ("click", 1, AT + 6, "a"))
    site.tell(("rating", 1, AT + 7, "a"), value=2.0)
    assert site.rows(FIRST) == [(1, 5, 0, 2.0)]


def test_an_impression_told_twice_is_one_row(site: Site) -> None:
    site.tell(("impression", 1, AT + 5, "a"), ("impression", 1, AT + 8, "a"), ("click", 1, AT + 9, "a"))
    made = make_day(site.settings, FIRST, "exposures")
    assert (made["rows"], made["positives"], made["repeated"], made["answered"]) == (1, 1, 1, 1)


def test_another_user_answers_nothing(site: Site) -> None:
    site.tell(("impression", 1, AT + 5, "a"))
    site.tell(("click", 1, AT + 9, "a"), user=2)
    assert site.rows(FIRST) == [(1, 5, 0, None), (1, 9, 1, None)]


def test_an_answer_after_midnight_belongs_to_its_impression(site: Site) -> None:
    site.tell(
        ("impression", 1, AT + DAY - 10, "a"), ("click", 1, AT + DAY + 10, "a"), ("click", 2, AT + DAY + 20, None)
    )
    assert site.rows(FIRST) == [(1, DAY - 10, 1, None)]
    assert site.rows(SECOND) == [(2, DAY + 20, 1, None)]


def test_what_comes_late_is_part_of_the_next_day_at_its_own_time(site: Site) -> None:
    site.tell(("impression", 1, AT + 5, "a"))
    assert site.rows(FIRST) == [(1, 5, 0, None)]
    site.tell(("click", 1, AT + 6, "a"), ("impression", 2, AT + 7, "a"), ("impression", 3, AT + DAY, "b"))
    assert make_day(site.settings, FIRST, "exposures")["made"] is False
    assert site.rows(SECOND) == [(1, 6, 1, None), (2, 7, 0, None), (3, DAY, 0, None)]


def test_what_comes_too_late_is_left_out(tmp_path: Path) -> None:
    site = Site(tmp_path, **{"events.late_days": 1})
    site.tell(("click", 1, AT - DAY - 1, None), ("click", 2, AT - DAY, None), ("click", 3, AT, None))
    assert site.rows(FIRST, "interactions") == [(2, -DAY, 1, None), (3, 0, 1, None)]


def test_interactions_are_what_users_did(site: Site) -> None:
    site.tell(("impression", 1, AT, "a"), ("click", 1, AT + 1, "a"), ("dislike", 2, AT + 2, "a"))
    site.tell(("rating", 3, AT + 3, None), value=3.0)
    site.tell(("rating", 4, AT + 4, None), value=3.5)
    assert site.rows(FIRST, "interactions") == [(1, 1, 1, None), (2, 2, 0, None), (3, 3, 0, 3.0), (4, 4, 1, 3.5)]


def test_every_event_is_used_once_over_the_days(site: Site) -> None:
    told = site.tell(
        *(("impression", item, AT + item, "a") for item in range(5)),
        *(("click", item, AT + 10 + item * 30_000, "a") for item in range(5)),
        *(("impression", item, AT + DAY + item, "b") for item in range(3)),
        ("impression", 0, AT + 50, "a"),
    )
    tables = [read_table(Path(make_day(site.settings, date, "exposures")["path"])) for date in (FIRST, SECOND)]
    used = [event for table in tables for event in events_in(table)]
    assert sorted(used) == sorted(told)


def test_ids_may_be_words(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.tell(("click", 1, AT, None), user="anna")
    path = make_day(site.settings, FIRST, "interactions")["path"]
    assert read_table(Path(path))["user_id"].to_pylist() == ["anna"]


def test_a_day_without_events_says_so(site: Site) -> None:
    with pytest.raises(DataUnavailable, match="no new events up to 1970-01-11"):
        make_day(site.settings, FIRST, "interactions")
    assert not (Workspace(site.settings).offline / "days" / FIRST).exists()


def test_the_script_prints_what_it_made(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.tell(("click", 1, AT, None))
    for name, value in {"STORE": site.settings.data.store, "DATASET": site.settings.data.dataset}.items():
        monkeypatch.setenv(f"MARQUEE_DATA__{name}", value)
    with pytest.raises(SystemExit) as ended:
        main(["--date", FIRST, "--rows", "interactions"])
    assert ended.value.code == 0
    assert '"rows": 1' in capsys.readouterr().out
