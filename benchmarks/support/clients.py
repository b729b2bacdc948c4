"""Concurrent HTTP clients on the loopback interface, each with one connection; bounded in number, count and time."""

from __future__ import annotations

import http.client
import ipaddress
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

MOST_REQUESTS = 200_000
LONGEST_S = 900.0


@dataclass(frozen=True)
class Reply:
    """One answer, or the lack of one.

    Attributes:
        started: `time.perf_counter()` when it was sent. seconds: until it was whole.
        status: 0 when no answer came; `error` then says why.
    """

    started: float
    seconds: float
    status: int
    body: dict[str, Any]
    request: dict[str, Any]
    error: str = ""


class Client:
    """Posts JSON over one kept connection, which is made anew after an error."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        if not ipaddress.ip_address(parts.hostname or "").is_loopback:
            raise ValueError(f"{url}: traffic goes to the loopback interface only")
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        started = time.perf_counter()
        try:
            self._connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            content = json.loads(response.read())
            return Reply(started, time.perf_counter() - started, response.status, content, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            return Reply(started, time.perf_counter() - started, 0, {}, body, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._connection.close()


class Clients:
    """`count` threads that ask one question after another until the block is left.

    Args:
        question: (client, turn) -> body of a request to `/ml/rec`.
        seen: called with every reply, by the client's own thread.
        pause: seconds between an answer and the next question.
    """

    def __init__(
        self,
        url: str,
        count: int,
        question: Callable[[int, int], dict[str, Any]],
        seen: Callable[[Reply], None],
        pause: float = 0.0,
    ) -> None:
        self._url, self._question, self._seen, self._pause = url, question, seen, pause
        self._ended = threading.Event()
        self._until = time.monotonic() + LONGEST_S
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(count)]
        self._most = MOST_REQUESTS // count

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _ask(self, number: int) -> None:
        client = Client(self._url)
        turn = 0
        while not self._ended.is_set() and turn < self._most and time.monotonic() < self._until:
            self._seen(client.post("/ml/rec", self._question(number, turn)))
            turn += 1
            if self._pause:
                self._ended.wait(self._pause)
        client.close()
