"""Every adapter that the contract suites run against: port -> backend -> how to have its server. Adding one is adding a line.

A backend is a context manager that takes settings whose store is an empty folder and yields settings whose URL names it,
with its server running, and that server if there is one in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores import embedded_redis
from tests.servers import ElasticsearchServer, RedisServer, Server, TritonServer


@dataclass(frozen=True)
class Backend:
    """A running backend. `server` is None when the adapter works in process."""

    settings: Settings
    server: Server | None = None


Opened = Callable[[Settings], AbstractContextManager[Backend]]


@contextmanager
def in_process(settings: Settings) -> Iterator[Backend]:
    """The embedded default of a port."""
    try:
        yield Backend(settings)
    finally:
        embedded_redis.stop(Workspace(settings).online)


def served(setting: str, make: Callable[[Path], Server]) -> Opened:
    """A server on its own port, named by its URL."""

    @contextmanager
    def opened(settings: Settings) -> Iterator[Backend]:
        with make(Path(settings.data.store) / "server") as server:
            named = {f"stores.{setting}": server.url}
            if isinstance(server, TritonServer):
                named["stores.triton_repository"] = str(server.repository)
            yield Backend(settings.with_values(**named), server)

    return opened


def triton(folder: Path) -> Server:
    return TritonServer(folder, folder / "models")


BACKENDS: dict[str, dict[str, Opened]] = {
    "user_store": {"embedded": in_process, "redis": served("user_store", RedisServer)},
    "item_index": {"embedded": in_process, "elasticsearch": served("item_index", ElasticsearchServer)},
    "feature_store": {"embedded": in_process, "redis": served("feature_store", RedisServer)},
    "scorer": {"embedded": in_process, "triton": served("scorer", triton)},
}
