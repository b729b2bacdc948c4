"""TCP proxies on the loopback interface that can delay what passes through them: servers that are slow or far away.

They pass bytes both ways. While a link's delay is more than 0, each chunk that comes back from the server is held for that
long before the next is read. Connections that the server closes or refuses are closed. All links run in one process of
their own, so that they share no interpreter with the clients that measure; it reads `name seconds` lines from its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from data_exchange_center.settings import ROOT
from tests.servers.process import HOST, free_port

CHUNK = 65_536


class SlowLinks:
    """Proxies in front of several servers; a context manager.

    Args:
        targets: name -> URL of a server on the loopback interface.

    Attributes:
        urls: name -> the same URL with the proxy's port.
    """

    def __init__(self, targets: dict[str, str]) -> None:
        self.urls: dict[str, str] = {}
        self._ports: dict[str, tuple[int, int]] = {}
        for name, url in targets.items():
            parts, port = urlsplit(url), free_port()
            if parts.port is None:
                raise ValueError(f"{url}: no port")
            self.urls[name] = urlunsplit(parts._replace(netloc=f"{HOST}:{port}"))
            self._ports[name] = (port, parts.port)
        self._process: subprocess.Popen[str] | None = None

    def delay(self, name: str, seconds: float) -> None:
        """From now on, what comes back through this link is held for so long."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the links run inside of their block only")
        self._process.stdin.write(f"{name} {seconds}\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.support.slow_link", json.dumps(self._ports)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if self._process.stdout is None or self._process.stdout.readline() != "listening\n":
            raise ConnectionError("the proxies did not come up")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()  # the end of its stdin ends it


class _Link:
    """One listening port."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target, self.delay_s = port, target, 0.0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.create_task(self._pass(reader, to_server, delayed=False)),
            asyncio.create_task(self._pass(from_server, writer, delayed=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.close()
            to_server.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, delayed: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                if delayed and self.delay_s > 0:
                    await asyncio.sleep(self.delay_s)
                sink.write(chunk)
                await sink.drain()


async def _serve(ports: dict[str, tuple[int, int]]) -> None:
    links = {name: _Link(*pair) for name, pair in ports.items()}
    servers = [await asyncio.start_server(link.accept, HOST, link.port) for link in links.values()]
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("listening", flush=True)
    while line := await commands.readline():
        name, seconds = line.decode().split()
        links[name].delay_s = float(seconds)
    for server in servers:
        server.close()


def main() -> None:
    ports: dict[str, Any] = json.loads(sys.argv[1])
    asyncio.run(_serve(ports))


if __name__ == "__main__":
    main()
