"""Vocabularies that grow online: many processes at once while Redis dies, and the time of a look-up.

    python benchmarks/vocabulary.py
    python benchmarks/vocabulary.py --processes 4 --tokens 2000    a short form

Every process asks for mixed tokens, known and new, in batches, while Redis is killed (kill -9) and restarted; a batch that
failed is asked again, as a server's next request would. Afterwards no id may be given twice, none left out, none be above the
capacity, and every process must have been told the same. The peer does what is commonly written: a look-up, then a counter, then a
hash, one after another; it is asked for the same without Redis being killed, and then with it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks.common import machine
from data_exchange_center.errors import StoreError
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.vocabulary import FIRST, UNKNOWN, Vocabulary
from online.pipeline.online_vocabulary import OnlineVocabulary
from online.stores.redis_link import link_to_url
from online.stores.redis_vocabularies import RedisVocabularies
from tests.servers import RedisServer

SCENE, FEATURE = "benchmark", "brand"
BATCH = 200
TIMEOUT_S = 1.0
RETRY_S = 0.05
GIVE_UP_S = 60.0
BETWEEN_KILLS_S = 0.3
Told = dict[str, int]
Client = Callable[[str, list[str], int], list[int]]


def ours(url: str, tokens: list[str], capacity: int) -> list[int]:
    """One batch by Marquee's store."""
    return _ours(url).assign(SCENE, FEATURE, tokens, TIMEOUT_S).ids.tolist()


def plain(url: str, tokens: list[str], capacity: int) -> list[int]:
    """One batch as it is commonly written: capacity checked, counter raised and token noted in calls of their own."""
    connection = _plain(url)
    ids = []
    for token in tokens:
        known = connection.hget("plain:tokens", token)
        if known is None and int(connection.get("plain:next") or 0) < capacity:
            known = FIRST - 1 + connection.incr("plain:next")
            connection.hset("plain:tokens", token, known)
        ids.append(UNKNOWN if known is None else int(known))
    return ids


def _ours(url: str) -> RedisVocabularies:
    return _opened.setdefault("ours", RedisVocabularies(link_to_url(url)))


def _plain(url: str) -> Any:
    return _opened.setdefault("plain", redis.Redis.from_url(url, socket_timeout=TIMEOUT_S))


_opened: dict[str, Any] = {}


def worker(client: Client, url: str, number: int, count: int, capacity: int, start_line: Any, results: Any) -> None:
    """Asks for `count` tokens of a heavy-tailed draw and reports what it was told first and whether that ever changed."""
    random = np.random.default_rng(number)
    draws = np.minimum(random.zipf(1.3, count), 3 * capacity)  # a common head, and a tail beyond the capacity
    told: Told = {}
    start_line.wait()
    changed, failed, began = 0, 0, time.monotonic()
    for start in range(0, count, BATCH):
        batch = [f"brand {draw}" for draw in draws[start : start + BATCH]]
        while time.monotonic() - began < GIVE_UP_S:
            try:
                ids = client(url, batch, capacity)
                break
            except (StoreError, redis.RedisError):
                failed += 1
                time.sleep(RETRY_S)
        else:
            break
        for token, number_told in zip(batch, ids, strict=True):
            known = told.setdefault(token, number_told)
            changed += known != number_told and known != UNKNOWN
            told[token] = number_told if known == UNKNOWN else known
    results.put((told, changed, failed))


def together(client: Client, server: RedisServer, processes: int, count: int, capacity: int, kills: int) -> list[Any]:
    """Runs the workers, kills Redis on the way, and returns what each reported."""
    context = multiprocessing.get_context("spawn")
    results, start_line = context.Queue(), context.Barrier(processes + 1)
    workers = [
        context.Process(target=worker, args=(client, server.url, number, count, capacity, start_line, results))
        for number in range(processes)
    ]
    for process in workers:
        process.start()
    start_line.wait()
    for _ in range(kills):
        time.sleep(BETWEEN_KILLS_S)
        server.kill()
        server.start()
    reported = [results.get(timeout=2 * GIVE_UP_S) for _ in workers]
    for process in workers:
        process.join()
    return reported


def judged(reported: list[Any], stored: Told, capacity: int) -> dict[str, int]:
    """What was wrong with what the processes were told and with what is stored."""
    ids = list(stored.values())
    first: Told = {}
    disagreed = 0
    for told, _, _ in reported:
        for token, number in told.items():
            if number != UNKNOWN:
                disagreed += first.setdefault(token, number) != number
    return {
        "assigned": len(ids),
        "ids_twice": sum(count - 1 for count in Counter(ids).values()),
        "gaps": (max(ids) - FIRST + 1 - len(set(ids))) if ids else 0,
        "over_capacity": sum(number >= FIRST + capacity for number in ids),
        "disagreements": disagreed + sum(stored.get(token) != number for token, number in first.items()),
        "changed": sum(changed for _, changed, _ in reported),
        "batches_asked_again": sum(failed for _, _, failed in reported),
    }


def look_ups(url: str, rounds: int = 3000) -> dict[str, float]:
    """Milliseconds of looking up a batch that is known, over the wire and from a process's memory; the peer asks token by token."""
    store = RedisVocabularies(link_to_url(url))
    batch = [token for token in store.export(SCENE, FEATURE).tokens if isinstance(token, str)][:BATCH]
    remembered = OnlineVocabulary(store, SCENE, FEATURE)
    return {
        **_timed("", lambda: store.assign(SCENE, FEATURE, batch, TIMEOUT_S), rounds),
        **_timed("remembered_", lambda: remembered.ids(batch, TIMEOUT_S), rounds),
        **_timed("plain_", lambda: plain(url, batch, 0), max(rounds // 30, 20)),
    }


def _timed(prefix: str, call: Callable[[], object], rounds: int) -> dict[str, float]:
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - began))
    return {
        f"{prefix}p50_ms": round(float(np.percentile(spent, 50)), 4),
        f"{prefix}p99_ms": round(float(np.percentile(spent, 99)), 4),
    }


def benchmark(processes: int, count: int, capacity: int, kills: int) -> dict[str, Any]:
    """Both clients, each on a Redis of its own; see the module's docstring."""
    with tempfile.TemporaryDirectory(prefix="marquee-vocabulary-") as folder:
        with RedisServer(Path(folder) / "ours") as server:
            store = RedisVocabularies(link_to_url(server.url))
            store.seed(SCENE, Vocabulary(FEATURE, tuple(f"brand {n}" for n in range(1, 101)), capacity))
            reported = together(ours, server, processes, count, capacity, kills)
            mine = judged(reported, dict(store.export(SCENE, FEATURE).ids), capacity)  # type: ignore[arg-type]
            times = look_ups(server.url)
        with RedisServer(Path(folder) / "plain") as server:
            reported = together(plain, server, min(processes, 8), min(count, 2000), capacity // 10, min(kills, 1))
            with redis.Redis.from_url(server.url) as connection:
                held: Any = connection.hgetall("plain:tokens")
            stored = {token.decode(): int(number) for token, number in held.items()}
            peer = judged(reported, stored, capacity // 10)
    wrong = ("ids_twice", "gaps", "over_capacity", "disagreements", "changed")
    own = {name: value for name, value in times.items() if not name.startswith("plain_")}
    peer_times = {name.removeprefix("plain_"): value for name, value in times.items() if name.startswith("plain_")}
    return {
        "name": "vocabulary",
        "machine": machine(),
        "ok": not any(mine[name] for name in wrong) and (mine["batches_asked_again"] > 0 or not kills),
        "processes": processes,
        "tokens": count,
        "capacity": capacity,
        "kills": kills,
        "batch": BATCH,
        "ours": {**mine, **own},
        "peer": {**peer, **peer_times},
        "ratio": {"p50": round(peer_times["p50_ms"] / own["p50_ms"], 1)},
    }


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--processes", type=int, default=16, help="that ask at the same time")
    arguments.add_argument("--tokens", type=int, default=20_000, help="that each asks for")
    arguments.add_argument("--capacity", type=int, default=10_000, help="of the vocabulary")
    arguments.add_argument("--kills", type=int, default=3, help="of Redis on the way")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return benchmark(parsed.processes, parsed.tokens, parsed.capacity, parsed.kills)

    run_step("vocabulary", arguments, step, argv)


if __name__ == "__main__":
    main()
