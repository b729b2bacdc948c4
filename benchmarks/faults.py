"""Kills, pauses, slows and restarts each server under load: every answer stays valid, in time, and says what it lacks.

    python benchmarks/faults.py                           Redis, Elasticsearch, Feast's online store, Triton
    python benchmarks/faults.py --light                   the two that are Redis; item index and scorer in process
    python benchmarks/faults.py --only triton --faults kill pause

For each server and fault, while the fault lasts: requests, answers of 5xx, invalid ones (not 200, not of full size, repeated or
unordered items), the latency's p99, how many answers were degraded; then how long after the server's return the answers were of
full quality again. Last, Marquee's server is started with each of them absent. Requests
that are under way when a server fails count.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import machine
from benchmarks.support.clients import Client, Clients, Reply
from benchmarks.support.slow_link import SlowLinks
from benchmarks.support.stack import REAL, end_on_sigterm, marquee_server, stack, store_urls
from data_exchange_center import columns as c
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.publish import publish
from tests.factories import make_release, make_settings
from tests.servers import Server

log = logging.getLogger("marquee.benchmark")

# server -> what its absence is called in `degraded`; at a start without Feast's store, the items' features are missing too
PARTS = {
    "redis": {"user_store"},
    "elasticsearch": {"item_index"},
    "feast": {"user_features", "item_features"},
    "triton": {"scorer"},
}
LIGHT = ("redis", "feast")
FAULTS = ("kill", "pause", "slow", "restart")
SIZE = 50
SLOW_S = 0.3
STEADY = 20  # answers of full quality in a row that count as recovered
RECOVERED_WITHIN_S = 5.0
LIMIT_MS = 150.0


@dataclass
class Watch:
    """Every reply, in the order of their ends."""

    replies: list[Reply] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, reply: Reply) -> None:
        with self.lock:
            self.replies.append(reply)

    def between(self, start: float, end: float) -> list[Reply]:
        """Replies to requests sent in this time, and those under way at its start."""
        with self.lock:
            return [reply for reply in self.replies if reply.started < end and reply.started + reply.seconds >= start]


def problem_of(reply: Reply) -> str:
    """Why a reply is not a valid answer of full size; "" when it is."""
    if reply.status != 200:
        return f"status {reply.status}: {reply.error or reply.body}"
    items = reply.body["item_list"]
    scores = [item["score"] for item in items]
    if len(items) != SIZE:
        return f"{len(items)} items instead of {SIZE}"
    if len({item["itemid"] for item in items}) != SIZE:
        return "an item twice"
    if not all(map(math.isfinite, scores)) or scores != sorted(scores, reverse=True):
        return "scores not finite or not descending"
    return ""


def summary(replies: Sequence[Reply], lacking: set[str]) -> dict[str, Any]:
    """What the replies of one fault showed."""
    problems = [problem for reply in replies if (problem := problem_of(reply))]
    degraded = [reply.body["degraded"] for reply in replies if reply.status == 200]
    seconds = [reply.seconds for reply in replies]
    return {
        "requests": len(replies),
        "errors_5xx": sum(reply.status >= 500 or reply.status == 0 for reply in replies),
        "invalid": len(problems),
        "p50_ms": round(1000 * float(np.percentile(seconds, 50)), 1) if seconds else None,
        "p99_ms": round(1000 * float(np.percentile(seconds, 99)), 1) if seconds else None,
        "degraded": sum(bool(lacking & set(parts)) for parts in degraded),
        "degraded_otherwise": sum(bool(set(parts) - lacking) for parts in degraded),
        **({"example": problems[0]} if problems else {}),
    }


def recovery(watch: Watch, returned: float, lacking: set[str], limit: float) -> float | None:
    """Seconds from the server's return until STEADY answers in a row lacked nothing of this; None when that took too long."""
    while time.perf_counter() - returned < limit:
        time.sleep(0.1)
        steady = 0
        for reply in sorted(watch.between(returned, math.inf), key=lambda reply: reply.started):
            whole = reply.status == 200 and not lacking & set(reply.body["degraded"])
            steady = steady + 1 if whole else 0
            if steady == 1:
                since = reply.started
            if steady == STEADY:
                return round(max(0.0, since - returned), 3)
    return None


def strike(fault: str, server: Server, links: SlowLinks, name: str, hold: float) -> None:
    """Brings the fault about for `hold` seconds, or as long as a restart takes; the server answers when this returns."""
    if fault == "kill":
        server.kill()
        time.sleep(hold)
        server.start()
    elif fault == "pause":
        with server.paused():
            time.sleep(hold)
    elif fault == "slow":
        links.delay(name, SLOW_S)
        time.sleep(hold)
        links.delay(name, 0.0)
    else:
        server.restart()


def under_faults(
    url: str, servers: dict[str, Server], links: SlowLinks, users: list[Any], faults: Sequence[str], hold: float
) -> dict[str, Any]:
    """Every fault of every server, one after another, under load."""
    watch = Watch()

    def question(client: int, turn: int) -> dict[str, Any]:
        return {"userid": users[(client * 31 + turn) % len(users)], "size": SIZE}

    found: dict[str, Any] = {}
    with Clients(url, 4, question, watch.see, pause=0.01):
        began = time.perf_counter()
        time.sleep(min(hold, 3.0))
        found["none"] = {"baseline": summary(watch.between(began, time.perf_counter()), set())}
        for name, server in servers.items():
            found[name] = {}
            for fault in faults:
                began = time.perf_counter()
                strike(fault, server, links, name, hold)
                returned = time.perf_counter()
                back = recovery(watch, returned, PARTS[name], 2 * RECOVERED_WITHIN_S)
                result = summary(watch.between(began, returned), PARTS[name])
                found[name][fault] = {**result, "lasted_s": round(returned - began, 1), "recovery_s": back}
                log.info("%s, %s: %s", name, fault, found[name][fault])
    return found


def start_without(settings: Settings, servers: dict[str, Server], users: list[Any]) -> dict[str, Any]:
    """Marquee's server, started while one of the servers is away: ready, degraded, and whole soon after the server is there."""
    found: dict[str, Any] = {}
    for name, server in servers.items():
        server.stop()
        began = time.perf_counter()
        with marquee_server(settings) as url:
            ready = time.perf_counter() - began
            watch = Watch()

            def question(client: int, turn: int) -> dict[str, Any]:
                return {"userid": users[turn % len(users)], "size": SIZE}

            with Clients(url, 2, question, watch.see, pause=0.02):
                time.sleep(1.0)
                without = summary(watch.between(began, math.inf), PARTS[name])
                server.start()
                back = recovery(watch, time.perf_counter(), PARTS[name], 2 * RECOVERED_WITHIN_S)
        found[name] = {**without, "ready_s": round(ready, 1), "recovery_s": back}
        log.info("started without %s: %s", name, found[name])
    return found


def faults(
    *,
    servers: Sequence[str] = REAL,
    only: Sequence[str] = (),
    kinds: Sequence[str] = FAULTS,
    hold: float = 5.0,
    starts: bool = True,
) -> dict[str, Any]:
    """The proof on servers of its own, in a temporary folder.

    Args:
        servers: those to run; the other stores are embedded.
        only: servers to treat badly; all of them when empty.
        hold: seconds that a fault lasts.
        starts: also start Marquee's server with each of them absent.

    Raises:
        Unavailable: this machine lacks a server.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-faults-")))
        running = opened.enter_context(stack(make_settings(folder), folder, servers))
        release = make_release(folder, users=200, items=600, settings=running.settings)
        publish(running.settings, release.id)
        users = release.table("users", [c.USER_ID])[c.USER_ID].to_pylist()
        links = opened.enter_context(SlowLinks({name: server.url for name, server in running.servers.items()}))
        settings = running.settings.with_values(**store_urls(links.urls))
        chosen = {name: server for name, server in running.servers.items() if not only or name in only}
        with marquee_server(settings) as url:
            warm(url, users)
            found = under_faults(url, chosen, links, users, kinds, hold)
        started = start_without(settings, chosen, users) if starts else {}
    baseline = found.pop("none")["baseline"]
    every = [result for results in found.values() for result in results.values()]
    return {
        "name": "faults",
        "machine": machine(),
        "ok": all(map(good, every)) and all(map(good_start, started.values())),
        "requests": sum(result["requests"] for result in every),
        "errors_5xx": sum(result["errors_5xx"] for result in every),
        "worst_p99_ms": max(result["p99_ms"] for result in every),
        "worst_recovery_s": max((math.inf if (s := result["recovery_s"]) is None else s) for result in every),
        "without_fault": baseline,
        "faults": found,
        "started_without": started,
    }


def good(result: dict[str, Any]) -> bool:
    """Whether one fault went as promised."""
    back = result["recovery_s"]
    whole = not result["errors_5xx"] and not result["invalid"] and result["degraded"] > 0
    return whole and result["p99_ms"] <= LIMIT_MS and back is not None and back <= RECOVERED_WITHIN_S


def good_start(result: dict[str, Any]) -> bool:
    """Whether a start without a server went as promised."""
    back = result["recovery_s"]
    whole = not result["errors_5xx"] and not result["invalid"] and result["degraded"] == result["requests"] > 0
    return whole and back is not None and back <= RECOVERED_WITHIN_S


def warm(url: str, users: list[Any], requests: int = 200) -> None:
    """Every worker and every connection has answered before anything is measured."""
    clients = [Client(url) for _ in range(4)]
    for number in range(requests):
        clients[number % len(clients)].post("/ml/rec", {"userid": users[number % len(users)], "size": SIZE})
    for client in clients:
        client.close()


def main(argv: list[str] | None = None) -> None:
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--light", action="store_true", help="only the servers that are Redis")
    arguments.add_argument("--only", nargs="+", choices=list(PARTS), default=[], help="servers to treat badly")
    arguments.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="which faults")
    arguments.add_argument("--hold", type=float, default=5.0, help="seconds that a fault lasts")
    arguments.add_argument("--no-starts", action="store_true", help="leave out the starts with a server absent")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return faults(
            servers=LIGHT if parsed.light else REAL,
            only=parsed.only,
            kinds=parsed.faults,
            hold=parsed.hold,
            starts=not parsed.no_starts,
        )

    run_step("faults", arguments, step, argv)


if __name__ == "__main__":
    main()
