"""Which real servers this machine can run: starts each once. The last line is JSON: {"servers": {name: state}}."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.servers import (
    ElasticsearchServer,
    FeastServer,
    NotStarted,
    RedisServer,
    Server,
    TlsProxy,
    TritonServer,
    Unavailable,
)

FEATURE_STORE = """project: marquee
registry: registry.db
provider: local
offline_store: {type: duckdb}
online_store: {type: sqlite, path: online.db}
entity_key_serialization_version: 3
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="marquee-servers-") as name:
        folder = Path(name)
        repository = folder / "feature-repository"
        repository.mkdir()
        (repository / "feature_store.yaml").write_text(FEATURE_STORE)
        servers: list[Server] = [
            RedisServer(folder / "redis"),
            ElasticsearchServer(folder / "elasticsearch"),
            FeastServer(folder / "feast", repository),
            TritonServer(folder / "triton", folder / "models"),
            TlsProxy(folder / "tls-proxy", "http://127.0.0.1:9200"),
        ]
        states = {server.name: try_out(server) for server in servers}
    print(json.dumps({"servers": states}))


def try_out(server: Server) -> str:
    started = time.perf_counter()
    try:
        with server:
            state = "ready"
    except Unavailable as error:
        state = f"not available: {error}"
    except NotStarted as error:
        state = f"did not start: {error}"
    print(f"{server.name:<14} {state} ({time.perf_counter() - started:.1f} s)", file=sys.stderr)
    return state


if __name__ == "__main__":
    main()
