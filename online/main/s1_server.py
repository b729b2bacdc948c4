"""The server on the live release, in the foreground: gunicorn with a few workers of a few threads each.

Heavy imports and the release's read-only arrays are loaded once, before the workers are forked; connections, threads and
model sessions are opened by each worker. A server that starts before anything was published is alive but not ready, and
picks the first release up when it is published.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shutil
import tempfile
from typing import Any

from flask import Flask

from data_exchange_center.settings import Settings, load_settings
from data_exchange_center.step import parser, run_step

log = logging.getLogger("marquee.server")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def create_app(settings: Settings | None = None) -> Flask:
    """The application, opened and ready to be called in this process: for tests and for other WSGI servers.

    Args:
        settings: by default from file and environment.
    """
    from online.api.app import build_app
    from online.api.runtime import Runtime
    from online.stores.open import open_stores

    runtime = Runtime(settings or load_settings())
    runtime.open(open_stores)
    return build_app(runtime)


def serve(settings: Settings) -> None:
    """Serves until a signal ends it.

    Raises:
        ReleaseError: the live release cannot be read; the message names the file.
    """
    master = os.getpid()
    logging.getLogger("faiss").setLevel(logging.WARNING)
    # the metrics modules look at this variable when they are imported, so it comes first
    os.environ[METRICS_FOLDER] = tempfile.mkdtemp(prefix="marquee-metrics-")
    try:
        from online.main.gunicorn_server import run_gunicorn

        run_gunicorn(settings)
    finally:
        gc.unfreeze()  # lets extension modules give back what they hold when the process ends
        if os.getpid() == master:  # workers leave through here too
            shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--host", help="address to listen on")
    arguments.add_argument("--port", type=int, help="port to listen on")
    arguments.add_argument("--workers", type=int, help="processes")
    arguments.add_argument("--threads", type=int, help="threads of each")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        given = {name: getattr(parsed, name) for name in ("host", "port", "workers", "threads")}
        serve(settings.with_values(**{f"serve.{name}": value for name, value in given.items() if value is not None}))
        return {}

    run_step("s1_server", arguments, step, argv)


if __name__ == "__main__":
    main()
