"""Feast's HTTP feature server on a feature repository."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import HOST, Server, Unavailable


class FeastServer(Server):
    """`feast serve` on the `feature_store.yaml` in `repository`."""

    name = "feast"
    deadline = 240.0

    def __init__(self, folder: Path, repository: Path) -> None:
        super().__init__(folder)
        self.repository = repository

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> Sequence[str | Path]:
        program = Path(sys.executable).with_name("feast")
        if not program.exists():
            raise Unavailable(f"feast: {program} is not there; install requirements.txt into this environment")
        serve = ["serve", "--host", HOST, "--port", str(self.port), "--workers", "1", "--max-requests", "0"]
        return [program, "--chdir", self.repository, *serve, "--registry_ttl_sec", "2", "--no-access-log"]

    def check(self) -> None:
        with urllib.request.urlopen(f"{self.url}/health", timeout=3) as answer:  # noqa: S310 - our own loopback address
            answer.read()
