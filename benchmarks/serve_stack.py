"""The HTTP chain on real servers, beside a plain chain on the same ones: latency, throughput, and where the time goes.

    python benchmarks/serve_stack.py                    a release of ML-100K's size, without training
    python benchmarks/serve_stack.py --newest           the newest release of the store, as trained

Both answer from the same release in the same Redis, Elasticsearch, Feast on Redis and Triton, with two processes each, and are
asked in turns by the same client, one request after another and eight at once. Ours gets a long budget, so that no answer is
made cheaper by leaving something out. The plain chain is support/plain_stack.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.common import machine
from benchmarks.support.load import Load, prepared, run
from benchmarks.support.plain_stack import CONFIG, remove, store
from benchmarks.support.stack import REAL, end_on_sigterm, get_json, marquee_server, stack
from data_exchange_center import columns as c
from data_exchange_center.errors import StoreError
from data_exchange_center.input_blocks import blocks_of_release
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace
from offline_to_online.publish import publish
from online.stores.feast_redis import VARIABLE, connection_string
from tests.factories import make_release, make_settings
from tests.servers import FeastServer, TritonServer
from tests.servers.process import HOST, free_port

log = logging.getLogger("marquee.benchmark")

SIZE = 50
USERS, ITEMS = 943, 1682
PATIENCE_MS = 60_000.0
PARALLEL = 8
TURN_S = 10.0


@dataclass
class Measured:
    """What the turns of one server measured: requests one after another, and many at once."""

    alone: list[Load] = field(default_factory=list)
    together: list[Load] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        single = np.concatenate([load.latencies_ms for load in self.alone])
        many = np.concatenate([load.latencies_ms for load in self.together])
        return {
            "p50_ms": round(float(np.percentile(single, 50)), 2),
            "p99_ms": round(float(np.percentile(single, 99)), 2),
            "requests_per_s": round(len(many) / sum(load.seconds for load in self.together), 1),
            "p99_ms_at_8": round(float(np.percentile(many, 99)), 2),
            "requests": len(single) + len(many),
            "errors": sum(load.errors for load in self.alone + self.together),
        }


def measure(url: str, users: list[Any], into: Measured, seconds: float, *, keep_alive: bool = True) -> None:
    """One turn of a server; gunicorn's default worker keeps no connection alive."""
    parts = urlsplit(url)
    address = (HOST, parts.port or 80)
    questions = [prepared("/ml/rec", {"userid": user, "size": SIZE}) for user in users]
    into.alone.append(run(address, questions, 1, 100_000, seconds, keep_alive=keep_alive))
    into.together.append(run(address, questions, PARALLEL, 100_000, seconds, keep_alive=keep_alive))


def stages(url: str) -> dict[str, tuple[float, float]]:
    """Stage -> (seconds, requests) so far, from the server's metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - our own loopback address
        text = answer.read().decode()
    found: dict[str, tuple[float, float]] = {}
    sums = dict(re.findall(r'^marquee_stage_seconds_sum\{stage="(\w+)"\} (\S+)$', text, re.M))
    counts = dict(re.findall(r'^marquee_stage_seconds_count\{stage="(\w+)"\} (\S+)$', text, re.M))
    for stage, seconds in sums.items():
        found[stage] = (float(seconds), float(counts[stage]))
    return found


def mean_ms(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean milliseconds of each stage between two looks."""
    none = (0.0, 0.0)
    return {
        stage: round(1000 * (seconds - before.get(stage, none)[0]) / (count - before.get(stage, none)[1]), 3)
        for stage, (seconds, count) in after.items()
        if count > before.get(stage, none)[1]
    }


@contextmanager
def plain_server(config: dict[str, Any]) -> Iterator[str]:
    """The plain chain under gunicorn with its default worker; yields its URL."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-w",
        "2",
        "-b",
        f"{HOST}:{port}",
        "--log-level",
        "warning",
        "--no-control-socket",
    ]
    environment = {**os.environ, CONFIG: json.dumps(config)}
    process = subprocess.Popen(
        [*command, "benchmarks.support.plain_stack:create_app()"], cwd=ROOT, env=environment, stdout=sys.stderr.fileno()
    )
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait_for_answer(url: str, user: Any, seconds: float = 60.0) -> None:
    """Asks until a whole list comes back."""
    data = json.dumps({"userid": user, "size": SIZE}).encode()
    question = urllib.request.Request(f"{url}/ml/rec", data, {"Content-Type": "application/json"})  # noqa: S310
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(question, timeout=30) as answer:  # noqa: S310 - our own loopback address
                if len(json.load(answer)["item_list"]) == SIZE:
                    return
                raise StoreError(f"{url}: a list of another size than {SIZE}")
        except OSError as error:
            if time.monotonic() > deadline:
                raise StoreError(f"{url}: no answer in {seconds:.0f} s: {error}") from error
            time.sleep(0.2)


def loaded_model(triton: TritonServer) -> tuple[str, str]:
    """Name and version of the one model that the server has loaded."""
    url = f"http://{HOST}:{triton.http_port}/v2/repository/index"
    with urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=10) as answer:
        ready = [entry for entry in json.load(answer) if entry.get("state") == "READY"]
    return ready[0]["name"], ready[0]["version"]


def serve_stack(settings: Settings | None, turns: int, seconds: float) -> dict[str, Any]:
    """The measurement, on servers of its own.

    Args:
        settings: of the store whose newest release is served; None makes a release without training.
        turns: of each server. seconds: of each half of a turn.

    Raises:
        Unavailable: this machine lacks a server.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-serve-")))
        own = make_settings(folder, **{"serve.budget_ms": PATIENCE_MS})
        release = release_for(settings, own, folder)
        running = opened.enter_context(stack(own.with_values(**{"features.spec": release.scene}), folder, REAL))
        servers = running.servers
        publish(running.settings, release.id)
        store(release, servers["redis"].url, servers["elasticsearch"].url)
        os.environ[VARIABLE] = connection_string(urlsplit(servers["feast"].url))
        feast = opened.enter_context(FeastServer(folder / "feast-server", Workspace(own).online / "feast"))
        triton = servers["triton"]
        if not isinstance(triton, TritonServer):
            raise TypeError("the stack's triton is not Triton")
        model, version = loaded_model(triton)
        config = {
            "redis": servers["redis"].url,
            "elasticsearch": servers["elasticsearch"].url,
            "feast": feast.url,
            "triton": f"http://{HOST}:{triton.http_port}",
            "model": model,
            "version": version,
            "features": [feature.model_dump(mode="json") for feature in release.spec().inputs],
            "inputs": {block.name: list(block.names) for block in blocks_of_release(release)},
        }
        users = np.random.default_rng(0).permutation(release.table("users", [c.USER_ID])[c.USER_ID].to_pylist())
        result = side_by_side(running.settings, config, users.tolist()[:200], turns, seconds)
        remove(servers["redis"].url, servers["elasticsearch"].url)
    ours, peer = result["ours"], result["peer"]
    ratio = {
        "requests_per_s": round(ours["requests_per_s"] / peer["requests_per_s"], 1),
        "p50": round(peer["p50_ms"] / ours["p50_ms"], 1),
        "p99": round(peer["p99_ms"] / ours["p99_ms"], 1),
    }
    ok = not ours["errors"] and not peer["errors"] and not ours["degraded"]
    head = {"name": "serve_stack", "machine": machine(), "ok": ok, "release": release.id}
    return {**head, **result, "ratio": ratio}


def release_for(settings: Settings | None, own: Settings, folder: Path) -> Release:
    """The release to serve, in the store of `own`: a link to the newest one of `settings`, or a new one."""
    if settings is None:
        return make_release(folder, users=USERS, items=ITEMS, settings=own)
    newest = find_release(settings)
    place = Workspace(own).releases / newest.id
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(newest.path)
    return newest


def side_by_side(
    settings: Settings, config: dict[str, Any], users: list[Any], turns: int, seconds: float
) -> dict[str, Any]:
    """Both servers, asked in turns."""
    ours, peer = Measured(), Measured()
    with marquee_server(settings) as our_url, plain_server(config) as peer_url:
        for url in (our_url, peer_url):
            for user in users[:20]:
                wait_for_answer(url, user)
        before = stages(our_url)
        for _ in range(turns):
            measure(our_url, users, ours, seconds)
            measure(peer_url, users, peer, seconds, keep_alive=False)
        spent = mean_ms(before, stages(our_url))
        degraded = get_degraded(our_url)
        workers = len(get_json(f"{our_url}/readyz")["workers"])
    return {
        "ours": {**ours.summary(), "stages_ms": spent, "degraded": degraded, "workers": workers},
        "peer": {**peer.summary(), "workers": 2},
    }


def get_degraded(url: str) -> int:
    """Answers that had to do without a part."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - our own loopback address
        text = answer.read().decode()
    return int(sum(float(value) for value in re.findall(r"^marquee_degraded_total\{[^}]*\} (\S+)$", text, re.M)))


def main(argv: list[str] | None = None) -> None:
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--newest", action="store_true", help="serve the newest release of the settings' store")
    arguments.add_argument("--turns", type=int, default=3, help="turns of each server")
    arguments.add_argument("--turn-seconds", type=float, default=TURN_S, help="of each half of a turn")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return serve_stack(settings if parsed.newest else None, parsed.turns, parsed.turn_seconds)

    run_step("serve_stack", arguments, step, argv)


if __name__ == "__main__":
    main()
