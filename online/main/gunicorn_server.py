"""How gunicorn runs the application: what happens before the fork, in each worker, and when one ends."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from prometheus_client import multiprocess

from data_exchange_center.settings import Settings
from online.api.app import build_app
from online.api.runtime import Runtime
from online.stores.open import import_adapters, live_release, open_stores

log = logging.getLogger("marquee.server")

GRACEFUL_SECONDS = 10
KEEP_ALIVE_SECONDS = 30


class Server(BaseApplication):
    """One gunicorn server around one runtime."""

    def __init__(self, settings: Settings, runtime: Runtime, app: Flask) -> None:
        self._settings, self._runtime, self._app = settings, runtime, app
        super().__init__()

    def load_config(self) -> None:
        serve = self._settings.serve
        options: dict[str, Any] = {
            "bind": f"{serve.host}:{serve.port}",
            "workers": serve.workers,
            "threads": serve.threads,
            "worker_class": "online.main.polling_worker.PollingWorker",
            "preload_app": True,
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": KEEP_ALIVE_SECONDS,
            "control_socket_disable": True,
            "proc_name": "marquee",
            "loglevel": "warning",
            "when_ready": self._listening,
            "post_worker_init": self._open,
            "worker_exit": self._close,
            "child_exit": self._ended,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._app

    def _listening(self, server: Arbiter) -> None:
        serve = self._settings.serve
        addresses = ", ".join(str(listener) for listener in server.LISTENERS)
        log.warning("listening on %s with %d workers of %d threads", addresses, serve.workers, serve.threads)

    def _open(self, worker: Worker) -> None:
        self._runtime.board.claim(worker.age)
        self._runtime.open(open_stores)

    def _close(self, server: Arbiter, worker: Worker) -> None:
        leaving = sys.exc_info()[1]
        try:
            self._runtime.close()
        finally:
            logging.shutdown()
            # Not through the interpreter's end: extension modules whose threads stayed behind in the master abort there.
            os._exit(leaving.code if isinstance(leaving, SystemExit) and isinstance(leaving.code, int) else 0)

    def _ended(self, server: Arbiter, worker: Worker) -> None:
        self._runtime.board.forget(worker.age)
        multiprocess.mark_process_dead(worker.pid)


def run_gunicorn(settings: Settings) -> None:
    """Serves until a signal ends it.

    Raises:
        ReleaseError: the live release cannot be read; the message names the file.
    """
    runtime = Runtime(settings)
    import_adapters(settings)
    live = live_release(settings)
    if live is None:
        log.warning("nothing is published yet; the server is alive and becomes ready with the first release")
    else:
        runtime.preload(live)
    app = build_app(runtime)
    gc.collect()
    gc.freeze()
    Server(settings, runtime, app).run()
