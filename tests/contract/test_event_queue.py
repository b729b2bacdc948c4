"""The contract of working off events, on every adapter, and that the archive holds each once whatever dies."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from data_exchange_center.event_archive import EventArchive
from online.main.s3_event_worker import EventWorker
from online.stores.ports import Event, UserStore

SECONDS = 5.0
DAY = "1970-01-01"


@pytest.fixture
def scene() -> str:
    return f"events-{uuid.uuid4().hex}"


def append(users: UserStore, scene: str, first: int, count: int) -> None:
    events = [Event(f"e{n}", n % 3, n % 7, "click", None, n) for n in range(first, first + count)]
    users.append_events(scene, events, SECONDS)


def worker(users: UserStore, folder: Path, scene: str, name: str, idle: float = 0.0, batch: int = 10) -> EventWorker:
    return EventWorker(users.events_queue, EventArchive(folder), scene, name, batch, 0.0, idle)


def archived(folder: Path) -> list[str]:
    return [str(event) for event in EventArchive(folder).read(DAY)["event_id"].to_pylist()]


def test_each_event_goes_to_one_worker_oldest_first(users: UserStore, scene: str) -> None:
    append(users, scene, 0, 6)
    queue = users.events_queue
    first, second = queue.take(scene, "a", 4, 0.0), queue.take(scene, "b", 4, 0.0)
    assert [event.event_id for _, event in first + second] == [f"e{n}" for n in range(6)]
    assert queue.take(scene, "a", 4, 0.01) == []
    assert queue.waiting(scene) == (0, 6)
    queue.confirm(scene, [position for position, _ in first])
    queue.confirm(scene, [position for position, _ in first])
    assert queue.waiting(scene) == (0, 2)


def test_what_a_dead_worker_left_is_taken_over(users: UserStore, scene: str) -> None:
    append(users, scene, 0, 3)
    queue = users.events_queue
    left = [position for position, _ in queue.take(scene, "dead", 10, 0.0)]
    assert queue.take_over(scene, "a", 10, 60.0) == []  # it may still be at work
    assert [position for position, _ in queue.take_over(scene, "a", 10, 0.0)] == left
    assert queue.still_mine(scene, "dead", left) == set()
    assert queue.still_mine(scene, "a", left) == set(left)


def test_only_what_is_confirmed_and_old_is_forgotten(users: UserStore, scene: str) -> None:
    append(users, scene, 0, 6)
    queue = users.events_queue
    taken = [position for position, _ in queue.take(scene, "a", 4, 0.0)]
    queue.confirm(scene, taken[:2])
    assert queue.forget(scene, 0.0) == 0
    assert queue.forget(scene, 4e9) == 2
    assert [event.event_id for _, event in users.events(scene)] == ["e2", "e3", "e4", "e5"]
    queue.confirm(scene, taken[2:])
    assert queue.forget(scene, 4e9) <= 2
    assert {"e4", "e5"} <= {event.event_id for _, event in users.events(scene)}


def test_a_worker_archives_everything_once(users: UserStore, scene: str, tmp_path: Path) -> None:
    append(users, scene, 0, 25)
    one = worker(users, tmp_path, scene, "a")
    assert [one.round(0.0) for _ in range(4)] == [10, 10, 5, 0]
    assert archived(tmp_path) == [f"e{n}" for n in range(25)]
    assert users.events_queue.waiting(scene) == (0, 0)


def test_a_worker_that_died_after_writing_is_not_written_again(
    users: UserStore, scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(users, scene, 0, 8)
    dying = worker(users, tmp_path, scene, "dying")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(users.events_queue, "confirm", killed)
        with pytest.raises(Killed):
            dying.round(0.0)
    assert worker(users, tmp_path, scene, "next").round(0.0) == 0
    assert archived(tmp_path) == [f"e{n}" for n in range(8)] and len(EventArchive(tmp_path).batches()) == 1
    assert users.events_queue.waiting(scene) == (0, 0)


def test_a_worker_that_was_taken_for_dead_writes_nothing_of_what_another_took(
    users: UserStore, scene: str, tmp_path: Path
) -> None:
    append(users, scene, 0, 8)
    slow = worker(users, tmp_path, scene, "slow")
    taken = slow._gathered(0.0)
    assert worker(users, tmp_path, scene, "other").round(0.0) == 8
    assert slow._archived(taken) == 0
    assert archived(tmp_path) == [f"e{n}" for n in range(8)]
