"""The server as users run it: a release published by the program, gunicorn with its workers, requests over sockets."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.programs import ProgramFailed, run_program, running_program
from data_exchange_center.settings import ROOT, Settings, environment_for
from data_exchange_center.workspace import Workspace
from online.stores import embedded_redis
from tests.factories import make_release, make_settings

pytestmark = pytest.mark.e2e

SERVER = "online/main/s1_server.py"
PUBLISH = "offline_to_online/publish.py"
START_SECONDS = 60.0


@dataclass
class Running:
    """A server under test."""

    settings: Settings
    process: subprocess.Popen[bytes]

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One request on a connection of its own: status and JSON."""
        connection = http.client.HTTPConnection(self.settings.serve.host, self.settings.serve.port, timeout=30)
        try:
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def recommend(self, user: Any, size: int = 10) -> dict[str, Any]:
        status, answer = self.ask("POST", "/ml/rec", {"userid": user, "size": size})
        assert status == 200, answer
        return dict(answer)

    def wait(self, path: str, condition: Any) -> Any:
        """Asks until the condition on (status, answer) holds."""
        deadline = time.monotonic() + START_SECONDS
        last: Any = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server ended"
            try:
                last = self.ask("GET", path)
                if condition(*last):
                    return last
            except (OSError, http.client.HTTPException) as error:
                last = error
            time.sleep(0.05)
        raise AssertionError(f"{path} did not come to it: {last}")

    def wait_for(self, release: str) -> None:
        """Until every worker answers from this release."""
        self.wait("/readyz", lambda status, answer: status == 200 and answer["release"] == release)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    with running_program(SERVER, [], settings) as process:
        yield Running(settings, process)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with a store and a port of their own; its Redis is stopped in the end."""
    folder = tmp_path_factory.mktemp("serving")
    port = free_port()
    made = make_settings(folder, **{"serve.port": port, "serve.admin_token": "secret", "serve.budget_ms": 5000.0})
    try:
        yield made
    finally:
        embedded_redis.stop(Workspace(made).online)


@dataclass
class Traffic:
    """What clients saw while something happened to the server."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextmanager
def traffic(server: Running, users: list[Any], clients: int = 3) -> Iterator[Traffic]:
    """Asks for lists in the background, each client one after the other, until the block ends."""
    seen, ended = Traffic(), threading.Event()

    def client(number: int) -> None:
        while not ended.is_set():
            try:
                seen.answers.append(server.recommend(users[number % len(users)], 20))
            except (AssertionError, OSError, http.client.HTTPException, ValueError) as error:
                seen.failures.append(repr(error))
            number += clients
            time.sleep(0.01)  # leaves the machine some time for what happens meanwhile

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


def test_from_no_release_to_two_and_back_under_traffic(settings: Settings, tmp_path: Path) -> None:
    """Starts before anything is published, picks the first release up, follows a publish and a rollback without an error."""
    store = Path(settings.data.store).parent
    with running(settings) as server:
        server.wait("/healthz", lambda status, answer: status == 200)
        status, state = server.ask("GET", "/readyz")
        assert (status, state["ready"]) == (503, False)
        assert server.ask("POST", "/ml/rec", {"userid": 1})[1]["error"]["code"] == "not_ready"

        first = make_release(store, users=30, items=80, seed=1, settings=settings)
        run_program(PUBLISH, ["--release", first.id], settings)
        server.wait_for(first.id)
        users = first.table("users")["user_id"].to_pylist()
        answer = server.recommend(users[0])
        assert answer["release"] == first.id
        assert len(answer["item_list"]) == 10

        second = make_release(store, users=30, items=80, seed=2, settings=settings)
        with traffic(server, users) as seen:
            run_program(PUBLISH, ["--release", second.id], settings)
            server.wait_for(second.id)
            time.sleep(0.3)
            back = run_program(PUBLISH, ["--rollback"], settings)
            assert back["release"] == first.id
            server.wait_for(first.id)
            time.sleep(0.3)
        assert not seen.failures
        assert {answer["release"] for answer in seen.answers} == {first.id, second.id}
        assert all(len(answer["item_list"]) == 20 and not answer["degraded"] for answer in seen.answers)
        items = {release.id: set(release.table("items")["item_id"].to_pylist()) for release in (first, second)}
        for answer in seen.answers:
            assert {item["itemid"] for item in answer["item_list"]} <= items[answer["release"]]

        status, flipped = server.ask(
            "POST", "/admin/publish", {"release": second.id}, {"Authorization": "Bearer secret"}
        )
        assert (status, flipped["release"]) == (200, second.id)
        assert server.recommend(users[0])["release"] == second.id

        metrics = http.client.HTTPConnection(settings.serve.host, settings.serve.port, timeout=10)
        metrics.request("GET", "/metrics")
        text = metrics.getresponse().read().decode()
        metrics.close()
        assert 'marquee_requests_total{route="/ml/rec",status="200"}' in text
        assert f'marquee_release_live{{release="{second.id}"}} 1.0' in text

        client = subprocess.run(
            [sys.executable, str(ROOT / "online/main/s2_client.py"), "--user", str(users[0]), "--size", "3"],
            env=environment_for(settings),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert len(json.loads(client.stdout.splitlines()[-1])["item_list"]) == 3

    assert server.process.returncode == 0


def test_a_release_that_is_broken_on_disk_does_not_start_a_server(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **{"serve.port": free_port()})
    try:
        release = make_release(tmp_path, users=10, items=20, settings=settings)
        run_program(PUBLISH, ["--release", release.id], settings)
        path = release.path / "recall" / "item_vectors.npy"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(ProgramFailed, match=r"recall/item_vectors\.npy: checksum differs"):
            run_program(SERVER, [], settings, timeout=60)
    finally:
        embedded_redis.stop(Workspace(settings).online)


def test_a_body_that_never_ends_holds_up_nobody(settings: Settings) -> None:
    with running(settings) as server:
        server.wait("/readyz", lambda status, answer: status in (200, 503))
        with socket.create_connection((settings.serve.host, settings.serve.port), timeout=10) as hanging:
            hanging.sendall(
                b"POST /ml/rec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            assert server.ask("GET", "/healthz")[0] == 200
