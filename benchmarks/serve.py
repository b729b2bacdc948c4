"""HTTP latency and throughput of the server, beside the same chain as it is commonly written (plain_chain.py).

    python benchmarks/serve.py                    the live release of the settings' store
    python benchmarks/serve.py --rounds 5 --count 4000

Both serve the same release with the same model on this machine, two workers each, 50 of at least 300 scored candidates, loopback
only. One client at a time for latency, several at once for throughput; the median of the rounds is reported. When there is no
live release, the newest one is published, and when there is none, the offline stages make one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import machine
from benchmarks.plain_chain import RELEASE, SOCKET, store
from benchmarks.support.load import prepared, run
from data_exchange_center import columns as c
from data_exchange_center.errors import MarqueeError, NotReady
from data_exchange_center.programs import run_program, running_program
from data_exchange_center.release import Release, find_release, list_releases
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.demo_steps import wait_until_serving
from online.stores import embedded_redis
from online.stores.open import live_release

log = logging.getLogger("marquee.benchmark")

SIZE = 50
CANDIDATES = 300
CLIENTS = 8
WORKERS = 2
LIMIT_S = 60.0  # of one run; what was answered until then counts
PEER_LIMIT_S = 10.0
Address = tuple[str, int]


def benchmark(settings: Settings, rounds: int, count: int) -> dict[str, Any]:
    """Measures ours and the peer, one after the other.

    Args:
        rounds: of each measurement; the median counts.
        count: requests of one round (the peer gets a tenth).

    Returns:
        name, machine, release, ours, peer, ratio.
    """
    release = servable(settings)
    users = release.table("users", [c.USER_ID])[c.USER_ID].to_pylist()
    chosen = np.random.default_rng(settings.seed).permutation(len(users))[:500]
    requests = [prepared("/ml/rec", {"userid": users[place], "size": SIZE}) for place in chosen]
    with our_server(settings, release.id) as address:
        stages = looked_into(address, [users[place] for place in chosen[:100]])
        ours = measured(address, requests, rounds, count, LIMIT_S, keep_alive=True)
    with plain_server(release, settings.serve.host) as address:
        peer = measured(address, requests, rounds, max(count // 10, 50), PEER_LIMIT_S, keep_alive=False)
    return {
        "name": "serve",
        "machine": machine(),
        "release": release.id,
        "ours": {**ours, "stages_ms": stages},
        "peer": peer,
        "ratio": {
            "p50": round(peer["p50_ms"] / ours["p50_ms"], 2),
            "p99": round(peer["p99_ms"] / ours["p99_ms"], 2),
            "requests_per_s": round(ours["requests_per_s"] / peer["requests_per_s"], 2),
        },
    }


def servable(settings: Settings) -> Release:
    """The live release; published, or even made, when there is none."""
    live = live_release(settings)
    if live is None:
        if not list_releases(settings):
            log.warning("there is no release yet: running the offline stages first")
            run_program("offline/s0_run_offline.py", [], settings)
        live = run_program("offline_to_online/publish.py", [], settings)["release"]
    return find_release(settings, live)


@contextmanager
def our_server(settings: Settings, release: str) -> Iterator[Address]:
    """Marquee's server with two workers."""
    host = settings.serve.host
    own = settings.with_values(**{"serve.port": unused_port(host), "serve.workers": WORKERS})
    with running_program("online/main/s1_server.py", ["--quiet"], own):
        wait_until_serving(f"http://{host}:{own.serve.port}", release)
        yield host, own.serve.port


@contextmanager
def plain_server(release: Release, host: str) -> Iterator[Address]:
    """The plain chain under gunicorn's default worker, two of them, with a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="plain-chain-") as folder:
        place = str(embedded_redis.ensure_running(Path(folder)))
        try:
            store(release, place)
            port = unused_port(host)
            command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"{host}:{port}"]
            command += ["--log-level", "warning", "--no-control-socket", "benchmarks.plain_chain:create_app()"]
            environment = os.environ | {RELEASE: str(release.path), SOCKET: place}
            process = subprocess.Popen(command, cwd=ROOT, env=environment)
            try:
                wait_for_answers((host, port), process, release)
                yield host, port
            finally:
                process.terminate()
                process.wait(30)
        finally:
            embedded_redis.stop(Path(folder))


def measured(
    address: Address, requests: Sequence[bytes], rounds: int, count: int, limit_s: float, *, keep_alive: bool
) -> dict[str, Any]:
    """p50 and p99 at one client, and requests per second of several; medians over the rounds.

    Raises:
        MarqueeError: an answer was not 200.
    """
    run(address, requests, CLIENTS, max(count // 4, 50), limit_s, keep_alive=keep_alive)
    p50, p99, rate, answered = [], [], [], 0
    for _ in range(rounds):
        alone = run(address, requests, 1, count, limit_s, keep_alive=keep_alive)
        together = run(address, requests, CLIENTS, 2 * count, limit_s, keep_alive=keep_alive)
        if alone.errors or together.errors:
            raise MarqueeError(f"{address[0]}:{address[1]}: {alone.errors + together.errors} answers were not 200")
        p50.append(alone.percentile(50))
        p99.append(alone.percentile(99))
        rate.append(together.requests_per_s)
        answered += len(alone.latencies_ms) + len(together.latencies_ms)
    return {
        "p50_ms": round(float(np.median(p50)), 3),
        "p99_ms": round(float(np.median(p99)), 3),
        "requests_per_s": round(float(np.median(rate)), 1),
        "best_p50_ms": round(min(p50), 3),
        "best_requests_per_s": round(max(rate), 1),
        "requests": answered,
    }


def looked_into(address: Address, users: Sequence[Any]) -> dict[str, float]:
    """Median milliseconds of each stage, from explained answers, which also prove what was scored."""
    found: dict[str, list[float]] = {}
    for user in users:
        answer = asked(address, {"userid": user, "size": SIZE, "explain": True})
        if len(answer["item_list"]) != SIZE or answer["scored"] < CANDIDATES:
            raise MarqueeError(f"user {user}: {len(answer['item_list'])} of {answer['scored']} candidates")
        for stage, spent in answer["timings_ms"].items():
            found.setdefault(stage, []).append(spent)
    return {stage: round(float(np.median(spent)), 3) for stage, spent in found.items()}


def asked(address: Address, body: dict[str, Any]) -> dict[str, Any]:
    """One answer, in full."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request("POST", "/ml/rec", json.dumps(body), {"Content-Type": "application/json"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def wait_for_answers(address: Address, process: subprocess.Popen[bytes], release: Release) -> None:
    """Returns when the server answers a list of full size."""
    user = release.table("users", [c.USER_ID])[c.USER_ID][0].as_py()
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if len(asked(address, {"userid": user, "size": SIZE})["item_list"]) == SIZE:
                return
        except OSError:
            time.sleep(0.1)
    raise NotReady(f"the plain chain does not answer at {address[0]}:{address[1]}")


def unused_port(host: str) -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--rounds", type=int, default=3, help="of each measurement; the median counts")
    arguments.add_argument("--count", type=int, default=2000, help="requests of one round")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return benchmark(settings, parsed.rounds, parsed.count)

    run_step("serve", arguments, step, argv)


if __name__ == "__main__":
    main()
