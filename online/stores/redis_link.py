"""Redis commands with a deadline: one pooled connection, one round trip, errors as the ports promise them.

redis-py's own calls know one timeout per connection and retry by themselves; a request with a budget needs a deadline per
call and no retry. So commands are packed, sent at once, and their replies read until the deadline: from the connection's socket
into hiredis, without the layers between them, which cost three times what Redis takes to answer. Connections that are free are
kept here for the same reason; the client's pool makes and closes them.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.retry import Retry

from data_exchange_center.errors import SettingsError, StoreError, StoreUnavailable

CONNECT_TIMEOUT_S = 0.5
RECEIVED_AT_ONCE = 65_536
_AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    OSError,
)
_OPTIONS: dict[str, Any] = {
    "protocol": 2,
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "health_check_interval": 0,
    "max_connections": 512,
    "driver_info": None,
}

Command = tuple[Any, ...]

_made_until: ContextVar[float] = ContextVar("made_until")


class _MadeInTime:
    """A connection whose making ends at the caller's deadline. The client asks for the password and the database before the
    first command, and a server that hangs accepts connections all the same, so these answers need a limit of their own."""

    socket_timeout: Any
    socket_connect_timeout: Any

    def _connect(self) -> Any:
        left = max(_made_until.get() - time.monotonic(), 0.001)
        self.socket_connect_timeout = self.socket_timeout = min(left, CONNECT_TIMEOUT_S)
        return super()._connect()  # type: ignore[misc]


class _Connection(_MadeInTime, redis.Connection):
    """Over TCP."""


class _TlsConnection(_MadeInTime, redis.SSLConnection):
    """Over TLS."""


class _SocketConnection(_MadeInTime, redis.UnixDomainSocketConnection):
    """Over a unix socket."""


_CLASSES = {"redis": _Connection, "rediss": _TlsConnection, "unix": _SocketConnection}


class RedisLink:
    """A connection pool of one Redis; safe to use from several threads."""

    def __init__(self, pool: redis.ConnectionPool, place: str) -> None:
        self._pool = pool
        self._free: list[Any] = []
        self.place = place

    def call(self, commands: Sequence[Command], timeout: float) -> list[Any]:
        """Sends all commands in one round trip and returns their replies (bytes, ints, lists, None) in order.

        Args:
            timeout: seconds for all of it.

        Raises:
            StoreUnavailable: no connection, no answer in time, or Redis refuses to serve (loading, read-only, out of memory).
            StoreError: a command was answered with an error.
        """
        if timeout <= 0:
            raise StoreUnavailable(f"{self.place}: no time left to ask")
        deadline = time.monotonic() + timeout
        with self._errors(), self._connected(timeout) as connection:
            return _exchanged(connection, commands, timeout, deadline)

    def stream(self, commands: Iterable[Command], timeout: float, ahead: int) -> Iterator[Any]:
        """Sends commands as they come and yields their replies in order, with at most `ahead` replies outstanding: while Redis
        works on the last commands, the next ones are made.

        Args:
            timeout: seconds that any one reply may take.

        Raises:
            StoreUnavailable, StoreError: as `call`; commands that were sent may or may not have been carried out.
        """
        with self._connected(timeout) as connection:
            outstanding = 0
            for command in commands:
                with self._errors():
                    connection.send_packed_command(connection.pack_commands([command]), check_health=False)
                    outstanding += 1
                    reply = connection.read_response() if outstanding > ahead else None
                if outstanding > ahead:
                    outstanding -= 1
                    yield reply
            for _ in range(outstanding):
                with self._errors():
                    reply = connection.read_response()
                yield reply

    def one(self, command: Command, timeout: float) -> Any:
        """The reply of one command."""
        return self.call([command], timeout)[0]

    @contextmanager
    def _connected(self, timeout: float) -> Iterator[Any]:
        """A connection whose socket waits `timeout` seconds. One on which anything went wrong is closed: replies may still be
        under way, and they must not meet the next request."""
        with self._errors():
            connection = self._taken(timeout)
        try:
            connection._sock.settimeout(timeout)  # the client's own call leaves a socket alone that does not wait
            yield connection
        except BaseException:
            self._dropped(connection)
            raise
        self._free.append(connection)

    def _taken(self, timeout: float) -> Any:
        """A connection that nobody else uses and that the server has not closed; making one takes `timeout` seconds at most."""
        while self._free:
            try:
                connection = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if _is_quiet(connection):
                return connection
            self._dropped(connection)
        token = _made_until.set(time.monotonic() + timeout)
        try:
            return self._pool.get_connection()
        finally:
            _made_until.reset(token)

    def _dropped(self, connection: Any) -> None:
        connection.disconnect()
        self._pool.release(connection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The client's errors as the port's."""
        try:
            yield
        except _AWAY as error:
            raise StoreUnavailable(f"{self.place}: {error}") from error
        except redis.RedisError as error:
            raise StoreError(f"{self.place}: {error}") from error

    def close(self) -> None:
        """Closes every connection."""
        self._free.clear()
        self._pool.disconnect()


def _exchanged(connection: Any, commands: Sequence[Command], timeout: float, deadline: float) -> list[Any]:
    """Sends the commands and reads as many replies, until the deadline."""
    own: socket.socket = connection._sock
    reader = connection._parser._reader
    own.settimeout(max(deadline - time.monotonic(), 0.001))  # making the connection may have taken some
    own.sendall(b"".join(connection.pack_commands(commands)))
    replies: list[Any] = []
    while len(replies) < len(commands):
        reply = reader.gets()
        if reply is not NOT_ENOUGH_DATA:
            if isinstance(reply, Exception):
                raise reply
            replies.append(reply)
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            raise redis.TimeoutError(f"no answer within {timeout * 1000:.0f} ms")
        own.settimeout(left)
        try:
            received = own.recv(RECEIVED_AT_ONCE)
        except TimeoutError as error:
            raise redis.TimeoutError(f"no answer within {timeout * 1000:.0f} ms") from error
        if not received:
            raise redis.ConnectionError("the server closed the connection")
        reader.feed(received)
    return replies


def _is_quiet(connection: Any) -> bool:
    """Whether a free connection is as it should be: open, with nothing to read."""
    own = connection._sock
    if own is None:
        return False
    if isinstance(own, ssl.SSLSocket):
        try:
            return not connection.can_read()
        except redis.RedisError:
            return False
    try:
        own.settimeout(0)
        own.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def link_to_url(url: str, ca_file: str = "") -> RedisLink:
    """A link to `redis://`, `rediss://` or `unix://`; the password in the URL never shows in messages.

    Args:
        ca_file: PEM file of the authority that signed the certificate of a `rediss://` server; "" for the system's.
    """
    parts = urlsplit(url)
    authority = {"ssl_ca_certs": ca_file} if ca_file and parts.scheme == "rediss" else {}
    try:
        pool = redis.ConnectionPool.from_url(
            url, connection_class=_CLASSES[parts.scheme], retry=Retry(NoBackoff(), 0), **authority, **_OPTIONS
        )
    except (KeyError, ValueError) as error:
        raise SettingsError(
            f"setting 'stores.user_store': not a Redis URL: {error}", field="stores.user_store"
        ) from error
    return RedisLink(
        pool, f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    )


def link_to_socket(path: str) -> RedisLink:
    """A link to a unix socket."""
    pool = redis.ConnectionPool(connection_class=_SocketConnection, path=path, retry=Retry(NoBackoff(), 0), **_OPTIONS)
    return RedisLink(pool, f"unix://{path}")
