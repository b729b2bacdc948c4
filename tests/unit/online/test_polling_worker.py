"""The worker under gunicorn's parser, over real sockets: no arbiter, one process."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from online.main.polling_worker import PollingWorker

THREADS = 2
held = threading.Event()


def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    if path == "/held":
        held.wait(20)
    if path == "/pieces":
        start("200 OK", [])
        return iter([b"one ", b"two"])
    if path == "/broken":
        raise ValueError("a bug")
    answer = path.encode() + b" " + body
    start("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


@pytest.fixture
def worker() -> Iterator[PollingWorker]:
    """A running worker; `sockets[0]` is where it listens."""
    held.clear()
    listener = socket.create_server(("127.0.0.1", 0))
    settings = Config()
    for name, value in {"threads": THREADS, "keepalive": 30, "graceful_timeout": 5, "workers": 2}.items():
        settings.set(name, value)
    made = PollingWorker(1, os.getppid(), [listener], None, 30, settings, Logger(settings))
    made.PIPE, made.wsgi = os.pipe(), application
    running = threading.Thread(target=made.run, daemon=True)
    running.start()
    yield made
    held.set()
    made.alive = False
    os.write(made.PIPE[1], b"x")
    running.join(15)
    assert not running.is_alive()


def connected(worker: PollingWorker) -> socket.socket:
    return socket.create_connection(worker.sockets[0].getsockname(), timeout=15)


def question(path: str, body: bytes = b"", more: str = "", method: str = "POST") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def read_until(client: socket.socket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end):
        piece = client.recv(65_536)
        if not piece:
            return got
        got += piece
    return got


def test_a_connection_answers_one_request_after_another(worker: PollingWorker) -> None:
    with connected(worker) as client:
        for number in range(5):
            client.sendall(question("/a", str(number).encode()))
            assert b"Connection: keep-alive" in read_until(client, f"/a {number}".encode())


def test_requests_sent_together_are_answered_in_their_order(worker: PollingWorker) -> None:
    with connected(worker) as client:
        client.sendall(question("/a", b"1") + question("/b", b"2"))
        got = read_until(client, b"/b 2")
    assert got.index(b"/a 1") < got.index(b"/b 2")


def test_more_connections_than_threads_are_served(worker: PollingWorker) -> None:
    clients = [connected(worker) for _ in range(4 * THREADS)]
    for number, client in enumerate(clients):
        client.sendall(question("/a", str(number).encode()))
    assert all(read_until(client, f"/a {number}".encode()) for number, client in enumerate(clients))
    for client in clients:
        client.close()


def test_a_request_that_takes_long_holds_up_no_other_connection(worker: PollingWorker) -> None:
    with connected(worker) as slow, connected(worker) as quick:
        slow.sendall(question("/held"))
        quick.sendall(question("/a", b"1"))
        assert read_until(quick, b"/a 1").startswith(b"HTTP/1.1 200")
        held.set()
        assert read_until(slow, b"/held ").startswith(b"HTTP/1.1 200")


def test_a_connection_that_says_nothing_takes_no_thread(worker: PollingWorker) -> None:
    silent = [connected(worker) for _ in range(THREADS)]
    with connected(worker) as client:
        client.sendall(question("/a", b"1"))
        assert read_until(client, b"/a 1")
    for one in silent:
        one.close()


def test_an_answer_without_a_length_comes_in_chunks(worker: PollingWorker) -> None:
    with connected(worker) as client:
        client.sendall(question("/pieces"))
        got = read_until(client, b"0\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in got and b"4\r\none \r\n3\r\ntwo\r\n" in got


def test_a_head_request_gets_the_head_alone(worker: PollingWorker) -> None:
    with connected(worker) as client:
        client.sendall(question("/a", method="HEAD", more="Connection: close\r\n"))
        got = read_until(client, b"never")
    assert got.startswith(b"HTTP/1.1 200") and got.endswith(b"\r\n\r\n")


def test_a_bug_is_answered_with_500_and_serving_goes_on(worker: PollingWorker) -> None:
    with connected(worker) as client:
        client.sendall(question("/broken"))
        assert read_until(client, b"never").startswith(b"HTTP/1.1 500")
    with connected(worker) as client:
        client.sendall(question("/a", b"1"))
        assert read_until(client, b"/a 1")


def test_nonsense_is_refused(worker: PollingWorker) -> None:
    with connected(worker) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert read_until(client, b"never").startswith(b"HTTP/1.1 400")


def test_an_idle_connection_is_closed(worker: PollingWorker) -> None:
    worker.cfg.set("keepalive", 1)
    with connected(worker) as client:
        client.sendall(question("/a", b"1"))
        read_until(client, b"/a 1")
        assert client.recv(1) == b""


def test_more_connections_than_allowed_wait_until_one_ends(worker: PollingWorker) -> None:
    worker.worker_connections = 1
    with connected(worker) as first:
        first.sendall(question("/a", b"1"))
        read_until(first, b"/a 1")
        with connected(worker) as second:
            second.sendall(question("/b", b"2"))
            second.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.recv(1)
            first.close()
            second.settimeout(15)
            assert read_until(second, b"/b 2")


def test_a_stopping_worker_ends_what_it_began(worker: PollingWorker) -> None:
    with connected(worker) as client:
        client.sendall(question("/held"))
        while not worker.nr_conns or worker.keepalived_conns:
            time.sleep(0.01)
        worker.alive = False
        os.write(worker.PIPE[1], b"x")
        held.set()
        got = read_until(client, b"/held ")
    assert got.startswith(b"HTTP/1.1 200") and b"Connection: close" in got
