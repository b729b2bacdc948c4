"""The embedded Redis: one per store, started once, found by others, durable, and gone when it is told so."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_exchange_center.errors import StoreUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores import embedded_redis
from online.stores.open import live_release, open_users
from online.stores.ports import Event
from tests.factories import make_settings

T = 2.0  # seconds


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    made = make_settings(tmp_path)
    yield made
    embedded_redis.stop(Workspace(made).online)


def pid(settings: Settings) -> int:
    found = embedded_redis.server_pid(Workspace(settings).online / "redis")
    assert found is not None
    return found


def test_who_comes_second_finds_the_first_ones_server(settings: Settings) -> None:
    online = Workspace(settings).online
    socket = embedded_redis.ensure_running(online)
    first = pid(settings)
    assert embedded_redis.ensure_running(online) == socket
    assert pid(settings) == first
    assert socket.stat().st_mode & 0o077 == 0, "nobody else may connect"


def test_many_starters_at_once_start_one(settings: Settings) -> None:
    online = Workspace(settings).online
    with multiprocessing.get_context("forkserver").Pool(4) as pool:
        sockets = pool.map(embedded_redis.ensure_running, [online] * 8)
    assert len(set(sockets)) == 1
    log = (online / "redis" / "redis.log").read_text()
    assert log.count("Server initialized") == 1


def test_stop_ends_it_and_its_data_stay(settings: Settings) -> None:
    users = open_users(settings)
    users.flip("s", "r1", None)
    users.close()
    online = Workspace(settings).online
    assert embedded_redis.stop(online)
    assert not embedded_redis.stop(online)
    assert embedded_redis.server_pid(online / "redis") is None
    users = open_users(settings)
    assert users.live("s", T) == "r1"
    users.close()


def test_an_accepted_event_survives_kill_9(settings: Settings) -> None:
    users = open_users(settings)
    for number in range(20):
        users.append_events("s", [Event(f"e{number}", 1, number, "click", None, number)], T)
    os.kill(pid(settings), signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        for _ in range(100):  # the socket closes a moment after the signal
            users.ping(T)
            time.sleep(0.01)
    users.close()
    users = open_users(settings)
    assert [event.event_id for _, event in users.events("s")] == [f"e{number}" for number in range(20)]
    assert users.read("s", "r1", 1, T).interacted == set(range(20))
    users.close()


def test_answered_lists_wait_for_no_disk(settings: Settings) -> None:
    users = open_users(settings)
    users.flip("s", "r1", None)
    log = Workspace(settings).online / "redis" / "appendonly.aof"
    before = log.stat().st_size
    users.log_answers("s", {"one": {"items": [1, 2]}}, T)
    assert users.answer("s", "one", T) == {"items": [1, 2]}
    assert log.stat().st_size == before
    users.append_events("s", [Event("e", 1, 1, "click", None, 1)], T)
    assert log.stat().st_size > before
    users.close()


def test_a_client_goes_on_after_a_restart(settings: Settings) -> None:
    users = open_users(settings)
    users.flip("s", "r1", None)
    embedded_redis.stop(Workspace(settings).online)
    with pytest.raises(StoreUnavailable):
        users.live("s", T)
    assert users.live_copy("s") == "r1", "the copy on disk outlives the server"
    embedded_redis.ensure_running(Workspace(settings).online)
    assert users.live("s", T) == "r1"
    users.close()


def test_a_server_that_hangs_costs_the_timeout(settings: Settings) -> None:
    users = open_users(settings)
    users.flip("s", "r1", None)
    os.kill(pid(settings), signal.SIGSTOP)
    try:
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            users.read("s", "r1", 1, 0.1)
        assert time.perf_counter() - started < 1.0
    finally:
        os.kill(pid(settings), signal.SIGCONT)
    assert users.read("s", "r1", 1, T).live == "r1"
    users.close()


def test_a_store_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    settings = make_settings(deep)
    online = Workspace(settings).online
    socket = embedded_redis.ensure_running(online)
    try:
        assert len(os.fsencode(socket)) <= embedded_redis.LONGEST_SOCKET_PATH
        assert (online / "redis" / "socket.txt").read_text().strip() == str(socket)
        assert embedded_redis.ensure_running(online) == socket
    finally:
        assert embedded_redis.stop(online)


def test_a_server_whose_socket_was_removed_is_replaced(settings: Settings) -> None:
    online = Workspace(settings).online
    socket = embedded_redis.ensure_running(online)
    first = pid(settings)
    socket.unlink()
    embedded_redis.ensure_running(online)
    assert pid(settings) != first


def test_a_server_that_cannot_start_says_why(settings: Settings) -> None:
    folder = Workspace(settings).online / "redis"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof").write_bytes(b"this is no append-only file\n")
    with pytest.raises(StoreUnavailable, match="Bad file format"):
        embedded_redis.ensure_running(Workspace(settings).online)


def test_the_live_release_is_told_without_a_server_too(settings: Settings) -> None:
    assert live_release(settings) is None
    users = open_users(settings)
    users.flip(settings.scene, "r1", None)
    users.close()
    assert live_release(settings) == "r1"
