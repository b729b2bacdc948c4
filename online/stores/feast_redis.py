"""`FeatureStore` on Feast with Redis as its online store.

Feast's own client knows one timeout per connection and, as redis-py does by default, retries a dead server for seconds. Here
it is given a client that retries nothing and whose reads end at the request's deadline. The `feature_store.yaml` for the
feature server carries no password: it takes the connection string from the environment variable `MARQUEE_FEAST_REDIS`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from data_exchange_center.errors import SettingsError, StoreUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores.feast_features import FeastFeatures, OpenView
from online.stores.ports import FeatureRows, FeatureStore, Id

CONNECT_TIMEOUT_S = 0.5
PATIENT_S = 30.0  # for reads and writes outside of requests
SHARDS_S = 5.0  # for one read of item shards, which happens in the background or while a release is warmed up
VARIABLE = "MARQUEE_FEAST_REDIS"
AWAY = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.ReadOnlyError)

_deadline: ContextVar[float] = ContextVar("deadline")


class Hurried(redis.Connection):
    """A connection that waits no longer than the caller's deadline."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        left = _deadline.get(time.monotonic() + PATIENT_S) - time.monotonic()
        if left <= 0:
            raise redis.TimeoutError("no time left to ask")
        self.update_current_socket_timeout(left)
        super().send_packed_command(command, check_health)


class HurriedTls(Hurried, redis.SSLConnection):
    """The same over TLS."""


class RedisFeatures(FeastFeatures):
    """FeastFeatures whose online store is the Redis at `url`: redis(s)://[user:password@]host:port[/database]."""

    def __init__(self, project: str, folder: Path, url: str, ca_file: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise SettingsError("stores.feature_store: not redis(s)://host:port", field="stores.feature_store")
        connection = connection_string(parts, ca_file)
        super().__init__(project, folder, {"type": "redis", "connection_string": connection}, AWAY)
        self._yaml = self._yaml.replace(connection, f"${{{VARIABLE}}}")
        secure: dict[str, Any] = {"connection_class": Hurried}
        if parts.scheme == "rediss":
            secure = {"connection_class": HurriedTls, **({"ssl_ca_certs": ca_file} if ca_file else {})}
        pool = redis.ConnectionPool(
            host=parts.hostname,
            port=parts.port or 6379,
            db=database(parts),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
            **secure,
        )
        self._client = redis.Redis(connection_pool=pool)
        # Feast has no way to hand it a client; it makes its own unless this one is there
        online_store: Any = self._feast._get_provider().online_store
        online_store._client = self._client

    def user(self, release: str, user_id: Id, timeout: float) -> FeatureRows:
        token = _deadline.set(time.monotonic() + timeout)
        try:
            return super().user(release, user_id, timeout)
        finally:
            _deadline.reset(token)

    def _shards(self, view: OpenView, release: str, numbers: Sequence[int]) -> list[bytes]:
        token = _deadline.set(time.monotonic() + SHARDS_S)
        try:
            return super()._shards(view, release, numbers)
        finally:
            _deadline.reset(token)

    def ping(self, timeout: float) -> None:
        token = _deadline.set(time.monotonic() + timeout)
        try:
            self._client.ping()
        except (*AWAY, OSError) as error:
            raise StoreUnavailable(f"feature store: {error}") from error
        finally:
            _deadline.reset(token)

    def close(self) -> None:
        super().close()
        self._client.close()


def open_features(settings: Settings, url: str) -> FeatureStore:
    """The adapter for a Redis URL; the registry and the sources lie in the store's folder."""
    return RedisFeatures(settings.scene, Workspace(settings).online / "feast", url, settings.stores.ca_file)


def database(parts: SplitResult) -> int:
    return int(parts.path.strip("/") or 0)


def connection_string(parts: SplitResult, ca_file: str = "") -> str:
    """Feast's form of a Redis URL: `host:port,key=value,...`."""
    words = [f"{parts.hostname}:{parts.port or 6379}", f"db={database(parts)}"]
    if parts.username:
        words.append(f"username={unquote(parts.username)}")
    if parts.password:
        words.append(f"password={unquote(parts.password)}")
    if parts.scheme == "rediss":
        words += ["ssl=true", *([f"ssl_ca_certs={ca_file}"] if ca_file else [])]
    return ",".join(words)
