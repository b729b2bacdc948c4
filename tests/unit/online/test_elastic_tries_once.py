"""A search is sent once: a server in trouble does not get the load again, nor a request the wait."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from data_exchange_center.errors import StoreUnavailable
from online.stores.elastic_items import ElasticItems
from online.stores.ports import Filters, VectorQuery


class HangsUp:
    """A server that closes every connection as soon as something was sent, or answers 503, and counts."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                self.requests += 1
                connection.sendall(self._answer)


BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nX-Elastic-Product: Elasticsearch\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=[b"", BUSY], ids=["hangs up", "busy"])
def server(request: pytest.FixtureRequest) -> Iterator[HangsUp]:
    made = HangsUp(request.param)
    yield made
    made.close()


def test_a_failed_search_is_not_sent_again(server: HangsUp) -> None:
    index = ElasticItems(server.url)
    with pytest.raises(StoreUnavailable):
        index.search("r", [VectorQuery(np.ones(4, np.float32), 5)], np.empty(0, np.int32), Filters(), 5.0)
    index.close()
    assert server.requests == 1
