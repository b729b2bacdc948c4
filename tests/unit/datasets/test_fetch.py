"""Downloads against a local server: whole, resumed, interrupted, wrong, refused."""

from __future__ import annotations

import fcntl
import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_exchange_center.errors import DataError, DataUnavailable, LockHeld
from offline.datasets import fetch as module
from offline.datasets.fetch import ARCHIVES, Archive, fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Publisher:
    """What the server does, and what was asked of it."""

    url: str = ""
    content: bytes = CONTENT
    sidecar: str = f"MD5 (set.zip) = {MD5}\n"
    breaks: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    statuses: list[int] = field(default_factory=list)  # answers of the next requests instead of the file
    ranges_known: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)  # (path, Range)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A server on 127.0.0.1 whose behaviour a test sets."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append((self.path, wanted))
            if self.path.endswith(".md5"):
                self._answer(200, state.sidecar.encode(), {})
            elif state.statuses:
                self.send_error(state.statuses.pop(0))
            elif wanted and state.ranges_known:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                if start >= len(state.content):
                    self._answer(416, b"", {"Content-Range": f"bytes */{len(state.content)}"})
                else:
                    place = f"bytes {start}-{len(state.content) - 1}/{len(state.content)}"
                    self._answer(206, state.content[start:], {"Content-Range": place})
            else:
                self._answer(200, state.content, {})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: state.breaks.pop(0)] if state.breaks else body)

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the tests' output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/movielens"
    yield state
    server.shutdown()
    server.server_close()


def only_the_archive(folder: Path) -> bool:
    """No part and no other file is left beside the archive and the lock."""
    return {path.name for path in folder.iterdir()} <= {"set.zip", ".set.zip.lock"}


def test_a_whole_download_is_verified_and_never_asked_for_again(publisher: Publisher, tmp_path: Path) -> None:
    for _ in range(2):
        path = fetch(Archive("set.zip", MD5), tmp_path / "raw", publisher.url + "/")
    assert path.read_bytes() == CONTENT
    assert publisher.asked == [("/movielens/set.zip", "")]
    assert only_the_archive(tmp_path / "raw")


def test_an_interrupted_transfer_goes_on_where_it_stopped(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks = [300_000, 200_000]
    path = fetch(Archive("set.zip", MD5), tmp_path, publisher.url)
    assert path.read_bytes() == CONTENT
    starts = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for _, asked in publisher.asked]
    assert len(starts) == 3
    assert starts == sorted(starts)
    assert starts[1] > 0


def test_what_an_earlier_run_left_is_not_fetched_again(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT[:700_000])
    fetch(Archive("set.zip", MD5), tmp_path, publisher.url)
    assert publisher.asked == [("/movielens/set.zip", "bytes=700000-")]
    assert only_the_archive(tmp_path)


def test_a_part_that_is_already_whole_is_taken(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    assert fetch(Archive("set.zip", MD5), tmp_path, publisher.url).read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_all_of_it(publisher: Publisher, tmp_path: Path) -> None:
    publisher.ranges_known = False
    (tmp_path / "set.zip.part").write_bytes(CONTENT[:700_000])
    assert fetch(Archive("set.zip", MD5), tmp_path, publisher.url).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (len(CONTENT) + 5)], ids=["other bytes", "too long"])
def test_a_part_of_another_file_is_thrown_away_and_fetched_anew(
    publisher: Publisher, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "set.zip.part").write_bytes(left)
    assert fetch(Archive("set.zip", MD5), tmp_path, publisher.url).read_bytes() == CONTENT
    assert publisher.asked[-1] == ("/movielens/set.zip", "")


def test_a_wrong_checksum_leaves_nothing_behind(publisher: Publisher, tmp_path: Path) -> None:
    publisher.content = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match=f"but {MD5} is published; nothing was kept"):
        fetch(Archive("set.zip", MD5), tmp_path, publisher.url)
    assert [path.name for path in tmp_path.iterdir()] == [".set.zip.lock"]


@pytest.mark.parametrize("sidecar", [f"MD5 (set.zip) = {MD5}\n", f"{MD5.upper()}  set.zip\n"])
def test_an_unpinned_checksum_is_read_from_the_publisher(publisher: Publisher, tmp_path: Path, sidecar: str) -> None:
    publisher.sidecar = sidecar
    fetch(Archive("set.zip"), tmp_path, publisher.url)
    assert publisher.asked[0] == ("/movielens/set.zip.md5", "")
    publisher.sidecar = "0" * 32
    with pytest.raises(DataError, match="is published"):
        fetch(Archive("set.zip"), tmp_path / "other", publisher.url)
    publisher.sidecar = "<html>moved</html>"
    with pytest.raises(DataUnavailable, match="holds no MD5"):
        fetch(Archive("set.zip"), tmp_path / "third", publisher.url)


def test_a_busy_server_is_asked_again(publisher: Publisher, tmp_path: Path) -> None:
    publisher.statuses = [503, 429]
    assert fetch(Archive("set.zip", MD5), tmp_path, publisher.url).read_bytes() == CONTENT


def test_an_archive_that_is_not_there_is_said_at_once(publisher: Publisher, tmp_path: Path) -> None:
    publisher.statuses = [404]
    with pytest.raises(DataUnavailable, match="answered 404 Not Found; point DATA= to a local copy"):
        fetch(Archive("set.zip", MD5), tmp_path, publisher.url)
    assert len(publisher.asked) == 1


def test_a_transfer_that_never_moves_keeps_what_arrived(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    (tmp_path / "set.zip.part").write_bytes(CONTENT[:1000])
    publisher.breaks = [0] * 10
    with pytest.raises(DataUnavailable, match=r"broke off at 1000 bytes .* the next run goes on there"):
        fetch(Archive("set.zip", MD5), tmp_path, publisher.url)
    assert (tmp_path / "set.zip.part").read_bytes() == CONTENT[:1000]


def test_without_a_network_it_fails_within_seconds_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(DataUnavailable, match=r"could not reach .*point DATA= to a local copy.*DATASET=synthetic"):
        fetch(Archive("set.zip", MD5), tmp_path, closed)
    assert time.monotonic() - started < 5


def test_a_resolver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: released.wait(30))
    monkeypatch.setattr(module.requests.utils, "get_environ_proxies", lambda _: {})
    started = time.monotonic()
    with pytest.raises(DataUnavailable, match=r"could not reach .*no address after 0.2 s"):
        fetch(Archive("set.zip", MD5), tmp_path, "http://publisher.invalid")
    released.set()
    assert time.monotonic() - started < 5


def test_two_processes_do_not_fetch_the_same_archive(publisher: Publisher, tmp_path: Path) -> None:
    with (tmp_path / ".set.zip.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockHeld, match="another process is fetching"):
            fetch(Archive("set.zip", MD5), tmp_path, publisher.url)


def test_every_set_that_never_changes_has_a_pinned_checksum() -> None:
    unpinned = {name for name, archive in ARCHIVES.items() if not re.fullmatch("[0-9a-f]{32}", archive.md5)}
    assert unpinned == {"ml-latest-small"}
