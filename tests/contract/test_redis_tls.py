"""A Redis behind TLS is asked only when its certificate is signed by the authority that the settings name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from data_exchange_center.errors import StoreUnavailable
from docker.setup_volumes import make_certificates
from online.stores.redis_link import link_to_url
from tests.servers import RedisServer, Unavailable
from tests.servers.process import HOST


class TlsRedisServer(RedisServer):
    """Redis that speaks TLS alone."""

    @property
    def url(self) -> str:
        return f"rediss://{HOST}:{self.port}/0"

    def command(self) -> Sequence[str | Path]:
        make_certificates(self.folder, HOST)
        plain = list(super().command())
        plain[plain.index("--port")] = "--tls-port"
        files: list[str | Path] = [
            "--tls-cert-file",
            self.folder / "server.crt",
            "--tls-key-file",
            self.folder / "server.key",
        ]
        return [*plain, "--port", "0", *files, "--tls-auth-clients", "no"]

    def check(self) -> None:
        authority = str(self.folder / "ca.crt")
        with redis.Redis(host=HOST, port=self.port, ssl=True, ssl_ca_certs=authority, socket_timeout=1) as client:
            client.ping()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedisServer]:
    try:
        with TlsRedisServer(tmp_path_factory.mktemp("redis-tls")) as running:
            yield running
    except Unavailable as error:
        pytest.skip(str(error))


def test_the_authority_of_the_settings_is_trusted(server: TlsRedisServer) -> None:
    assert link_to_url(server.url, str(server.folder / "ca.crt")).one(("PING",), 5.0) == b"PONG"


def test_any_other_authority_is_not(server: TlsRedisServer, tmp_path: Path) -> None:
    make_certificates(tmp_path, HOST)
    for authority in (str(tmp_path / "ca.crt"), ""):
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            link_to_url(server.url, authority).one(("PING",), 5.0)
