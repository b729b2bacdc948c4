"""A cheap HTTP load client: one process, keep-alive connections, prepared requests; loopback only, bounded in count and time.

It costs some 30 microseconds a request, so that on a small machine the server is measured and not the client.
"""

from __future__ import annotations

import ipaddress
import json
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ANSWER_SECONDS = 30.0  # that the last answers have


@dataclass(frozen=True)
class Load:
    """What a run measured.

    Attributes:
        latencies_ms: float64 [n], of every answer, in the order they came.
        seconds: from the first request to the last answer.
        errors: answers whose status was not 2xx.
    """

    latencies_ms: np.ndarray
    seconds: float
    errors: int

    @property
    def requests_per_s(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent))


def prepared(path: str, body: dict[str, Any]) -> bytes:
    """One POST as bytes."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class _Connection:
    """One keep-alive connection that is either idle or waits for one answer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.socket = self._connected()
        self.received = b""
        self.sent = 0.0

    def _connected(self) -> socket.socket:
        made = socket.create_connection(self._address, timeout=30)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def send(self, request: bytes) -> None:
        self.received = b""
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def renew(self) -> None:
        """Another connection, for servers that close it after each answer; its time counts as the next answer's."""
        self.socket.close()
        self.socket = self._connected()

    def status(self) -> int | None:
        """Reads what is there; the status once the answer is complete."""
        chunk = self.socket.recv(262_144)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self.received += chunk
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.received[:end].lower()
        mark = head.find(b"content-length:")
        if mark < 0:
            raise ConnectionError("an answer without Content-Length")
        length = int(head[mark + 15 : (head.find(b"\r\n", mark) + 1 or len(head) + 1) - 1])
        return int(self.received[9:12]) if len(self.received) >= end + 4 + length else None


def run(
    address: tuple[str, int],
    requests: Sequence[bytes],
    clients: int,
    count: int,
    limit_s: float,
    *,
    keep_alive: bool = True,
) -> Load:
    """Sends `count` requests over `clients` connections, each waiting for its answer before it sends the next.

    Args:
        address: loopback host and port.
        requests: sent in turn.
        limit_s: ends the run early: nothing is sent afterwards, and what is under way is waited for.
        keep_alive: False for a server that closes the connection after each answer.
    """
    if not ipaddress.ip_address(address[0]).is_loopback:
        raise ValueError(f"{address[0]}: load is sent to the loopback interface only")
    connections = [_Connection(address) for _ in range(clients)]
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    errors = sent = 0
    started = time.perf_counter()
    try:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(requests[sent % len(requests)])
            sent += 1
        waiting = clients
        while waiting and time.perf_counter() - started < limit_s + ANSWER_SECONDS:
            for key, _ in selector.select(1.0):
                connection = key.data
                status = connection.status()
                if status is None:
                    continue
                latencies.append((time.perf_counter() - connection.sent) * 1000.0)
                errors += not 200 <= status < 300
                if sent < count and time.perf_counter() - started < limit_s:
                    began = time.perf_counter()
                    if not keep_alive:
                        selector.unregister(connection.socket)
                        connection.renew()
                        selector.register(connection.socket, selectors.EVENT_READ, connection)
                    connection.send(requests[sent % len(requests)])
                    connection.sent = began
                    sent += 1
                else:
                    selector.unregister(connection.socket)
                    waiting -= 1
        seconds = time.perf_counter() - started
    finally:
        selector.close()
        for connection in connections:
            connection.socket.close()
    return Load(np.array(latencies), seconds, errors)
