"""How fast the users of a release get into Redis, from the release's files to acknowledged writes that are synced to disk.

    python benchmarks/sync.py                 100,000 users into a real redis-server with the stack's configuration

The peer is the loop as it is commonly written: one HSET of JSON a user, each waiting for its answer, on the same server. It gets a
twentieth of the users, which is in its favour. Afterwards a random sample of ours is read back and compared in every bit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from benchmarks.common import machine
from benchmarks.support.many_users import make_users_release
from benchmarks.support.stack import end_on_sigterm
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.profiles import user_vectors
from offline_to_online.recall.s1_user_to_redis import load_users, verify_users
from online.stores.redis_link import link_to_url
from online.stores.redis_users import RedisUsers
from tests.servers import RedisServer

PEER_SHARE = 20
ROUNDS = 3


def ours(release: Release, url: str, folder: Path) -> dict[str, Any]:
    """The sync step's own functions; the best of a few rounds, since other work on the machine only slows them."""
    users = RedisUsers(link_to_url(url), folder, 3.0)
    try:
        best: dict[str, Any] = {}
        for _ in range(ROUNDS):
            users.drop(release.scene, release.id)
            cpu = time.process_time()
            loaded = load_users(release, users)
            loaded["client_cpu_seconds"] = round(time.process_time() - cpu, 3)
            best = max(best, loaded, key=lambda one: one.get("users_per_second", 0))
        started = time.perf_counter()
        verified = verify_users(release, users)
    finally:
        users.close()
    return {**best, **verified, "verify_seconds": round(time.perf_counter() - started, 3)}


def plain_loop(release: Release, url: str, users: int) -> dict[str, Any]:
    """One command and one round trip a user, JSON values."""
    client = redis.Redis.from_url(url)
    started = time.perf_counter()
    rows = release.table("user_profiles").slice(0, users).to_pylist()
    for row, vector in zip(rows, user_vectors(release), strict=False):
        client.hset("plain:users", row["user_id"], json.dumps({**row, "vector": vector.tolist()}))
    seconds = time.perf_counter() - started
    memory = int(str(client.memory_usage("plain:users", samples=1000) or 0))
    client.close()
    return {"users": users, "users_per_second": round(users / seconds), "memory_bytes_per_user": round(memory / users)}


def sync(users: int) -> dict[str, Any]:
    """Both, one after the other, on one server."""
    with tempfile.TemporaryDirectory(prefix="marquee-sync-") as name:
        folder = Path(name)
        release = make_users_release(folder / "users-release", users)
        with RedisServer(folder / "redis") as server:
            peer = plain_loop(release, server.url, max(users // PEER_SHARE, 1))
            own = ours(release, server.url, folder)
    return {
        "name": "sync",
        "machine": machine(),
        "ours": own,
        "peer": peer,
        "ratio": {
            "users_per_second": round(own["users_per_second"] / peer["users_per_second"], 1),
            "memory_bytes_per_user": round(peer["memory_bytes_per_user"] / own["memory_bytes_per_user"], 2),
        },
    }


def main(argv: list[str] | None = None) -> None:
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--users", type=int, default=100_000, help="users of the release")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return sync(parsed.users)

    run_step("sync", arguments, step, argv)


if __name__ == "__main__":
    main()
