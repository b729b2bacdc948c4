"""A Redis that takes connections and never answers, as one that is paused does, holds nobody beyond the deadline."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from data_exchange_center.errors import StoreUnavailable
from online.stores.redis_link import RedisLink, link_to_socket, link_to_url

LONG_S = 10.0  # a hang


def refused(link: RedisLink) -> list[StoreUnavailable]:
    """What a call with a deadline of 50 ms raised; empty when it hangs."""
    raised: list[StoreUnavailable] = []

    def ask() -> None:
        try:
            link.one(("PING",), 0.05)
        except StoreUnavailable as error:
            raised.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LONG_S)
    return raised


@pytest.mark.parametrize("login", ["", ":secret@"], ids=["no password", "password"])
@pytest.mark.parametrize("database", [0, 3])
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_paused_server_is_away_also_while_a_connection_is_made(scheme: str, login: str, database: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        raised = refused(link_to_url(f"{scheme}://{login}127.0.0.1:{silent.getsockname()[1]}/{database}"))
    assert len(raised) == 1
    assert "secret" not in raised[0].message


def test_a_paused_server_behind_a_socket_is_away(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        assert len(refused(link_to_socket(str(path)))) == 1
