"""The servers that a proof runs on: embedded stores, or the real ones on free loopback ports; and Marquee's own server."""

from __future__ import annotations

import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_exchange_center.programs import running_program
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores import embedded_redis
from tests.servers import ElasticsearchServer, RedisServer, Server, TritonServer
from tests.servers.process import HOST, free_port

REAL = ("redis", "feast", "elasticsearch", "triton")
SERVER = "online/main/s1_server.py"
READY_S = 90.0
SETTINGS = {"redis": "user_store", "elasticsearch": "item_index", "feast": "feature_store", "triton": "scorer"}


@dataclass(frozen=True)
class Stack:
    """Where the stores are. `servers` by port name; empty on embedded stores."""

    settings: Settings
    servers: dict[str, Server] = field(default_factory=dict)


@contextmanager
def stack(settings: Settings, folder: Path, names: Collection[str] = REAL) -> Iterator[Stack]:
    """Starts the servers named and stops them at the end; the other stores stay embedded.

    `redis` holds the users, `feast` is a second Redis that holds Feast's online features, then `elasticsearch` and `triton`.

    Raises:
        Unavailable: this machine lacks one of them; the message says which and how to get it.
    """
    models = folder / "models"
    known: dict[str, Server] = {
        "redis": RedisServer(folder / "redis"),
        "feast": RedisServer(folder / "feast"),
        "elasticsearch": ElasticsearchServer(folder / "elasticsearch"),
        "triton": TritonServer(folder / "triton", models),
    }
    servers = {name: server for name, server in known.items() if name in names}
    with ExitStack() as opened:
        opened.callback(embedded_redis.stop, Workspace(settings).online)
        for server in servers.values():
            opened.enter_context(server)
        urls = store_urls({name: server.url for name, server in servers.items()})
        yield Stack(settings.with_values(**{"stores.triton_repository": str(models)}, **urls), servers)


def store_urls(urls: dict[str, str]) -> dict[str, str]:
    """The settings that name servers at these URLs."""
    return {f"stores.{SETTINGS[name]}": url for name, url in urls.items()}


@contextmanager
def marquee_server(settings: Settings, *, wait: bool = True) -> Iterator[str]:
    """Marquee's server in processes of its own; yields its URL, once it is ready unless told not to wait."""
    settings = settings.with_values(**{"serve.host": HOST, "serve.port": free_port()})
    url = f"http://{HOST}:{settings.serve.port}"
    with running_program(SERVER, ["--quiet"], settings) as process:
        if wait:
            wait_ready(url, lambda: process.poll() is None)
        yield url
        if process.poll() is not None:
            raise ChildProcessError(f"{SERVER} ended by itself with status {process.returncode}")


def wait_ready(url: str, alive: Any = lambda: True, seconds: float = READY_S) -> float:
    """Waits for /readyz to say 200; returns the seconds that it took."""
    started = time.perf_counter()
    while time.perf_counter() - started < seconds and alive():
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310 - our own loopback address
                answer.read()
                return time.perf_counter() - started
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    raise TimeoutError(f"{url}: not ready within {seconds:.0f} s")


def get_json(url: str) -> dict[str, Any]:
    """A JSON document of our own server."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own loopback address
        found: dict[str, Any] = json.loads(answer.read())
        return found


def end_on_sigterm() -> None:
    """Lets a SIGTERM (of `timeout`, of a supervisor) run the cleaning up that ends servers and removes folders."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
