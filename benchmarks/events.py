"""Events over HTTP: how many a second are accepted, each durable before its answer, and how fast a worker archives them.

    python benchmarks/events.py                 the embedded Redis
    python benchmarks/events.py --servers       a Redis server of its own

Eight clients send one event a request, then batches of 100, each event new; the append-only file is synced on every write. The
peer sends the same events from one process straight to that Redis, one XADD and one wait at a time: what is lost to HTTP,
validation and counting each `event_id` once shows in the ratio. At the end every event must be in the archive, once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.common import machine
from benchmarks.support.load import Load, prepared, run
from benchmarks.support.stack import end_on_sigterm, marquee_server, stack
from data_exchange_center import columns as c
from data_exchange_center.event_archive import EventArchive, archive_folder
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.publish import publish
from online.main.s3_event_worker import work
from online.stores.open import open_users
from online.stores.redis_keys import key
from online.stores.redis_users import RedisUsers
from tests.factories import make_release, make_settings

CLIENTS = 8
BATCH = 100
PLAIN = 500  # events of the peer


def requests_of(name: str, users: list[Any], items: list[Any], count: int, size: int) -> list[bytes]:
    """`count` requests of `size` new events each."""
    random = np.random.default_rng(size)
    made = []
    for place in range(count):
        events = [
            {
                "event_id": f"{name}-{place}-{number}",
                "userid": users[int(random.integers(len(users)))],
                "itemid": items[int(random.integers(len(items)))],
                "event": "click",
                "timestamp": 893_286_700 + place,
            }
            for number in range(size)
        ]
        made.append(prepared("/ml/events", {"events": events}))
    return made


def figures(load: Load, size: int) -> dict[str, Any]:
    """What one run measured."""
    return {
        "events_per_s": round(load.requests_per_s * size, 1),
        "p50_ms": round(load.percentile(50), 2),
        "p99_ms": round(load.percentile(99), 2),
    }


def plain_events_per_s(users: RedisUsers, scene: str) -> float:
    """One XADD after another over one connection."""
    began = time.perf_counter()
    for number in range(PLAIN):
        users._link.one(("XADD", key(scene, "plain-events"), "*", "event", f'{{"event_id": "p{number}"}}'), 5.0)
    return round(PLAIN / (time.perf_counter() - began), 1)


def benchmark(single: int, batches: int, *, real: bool) -> dict[str, Any]:
    """The measurement, on a store of its own.

    Args:
        single: requests of one event. batches: requests of `BATCH`.

    Raises:
        Unavailable: `real`, and this machine has no Redis server.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-events-")))
        settings = make_settings(folder, **{"serve.budget_ms": 5000.0, "events.linger_seconds": 0.0})
        release = make_release(folder, users=500, items=500, settings=settings)
        own = settings.with_values(**{"features.spec": release.scene})
        settings = opened.enter_context(stack(own, folder, ("redis",) if real else ())).settings
        publish(settings, release.id)
        people = release.table("users", [c.USER_ID])[c.USER_ID].to_pylist()
        items = release.table("items", [c.ITEM_ID])[c.ITEM_ID].to_pylist()
        with marquee_server(settings) as url:
            address = (str(urlsplit(url).hostname), int(urlsplit(url).port or 80))
            warm = run(address, requests_of("warm", people, items, 50, 1), CLIENTS, 50, 30.0)
            one = run(address, requests_of("one", people, items, single, 1), CLIENTS, single, 60.0)
            many = run(address, requests_of("many", people, items, batches, BATCH), CLIENTS, batches, 60.0)
        sent = len(warm.latencies_ms) + len(one.latencies_ms) + BATCH * len(many.latencies_ms)
        with closing(open_users(settings)) as users:
            assert isinstance(users, RedisUsers)  # noqa: S101  # for the type checker
            peer = plain_events_per_s(users, settings.scene)
        began = time.perf_counter()
        archived = work(settings, until_empty=True)
        seconds = time.perf_counter() - began
        archive = EventArchive(archive_folder(settings))
        held = [identifier for day in archive.days() for identifier in archive.read(day)["event_id"].to_pylist()]
    exact = len(held) == len(set(held)) == sent
    return {
        "name": "events",
        "machine": machine(),
        "ok": exact and not one.errors and not many.errors,
        "stores": "redis-server" if real else "embedded",
        "sent": sent,
        "archived_once": exact,
        "ours": {
            "one_a_request": figures(one, 1),
            "batches_of_100": figures(many, BATCH),
            "archived_per_s": round(archived["archived"] / seconds, 1),
        },
        "peer": {"one_xadd_at_a_time_events_per_s": peer},
        "ratio": {"events_per_s": round(one.requests_per_s / peer, 2)},
    }


def main(argv: list[str] | None = None) -> None:
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--single", type=int, default=6000, help="requests of one event")
    arguments.add_argument("--batches", type=int, default=600, help="requests of 100 events")
    arguments.add_argument("--servers", action="store_true", help="on a Redis server instead of the embedded one")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return benchmark(parsed.single, parsed.batches, real=parsed.servers)

    run_step("events", arguments, step, argv)


if __name__ == "__main__":
    main()
