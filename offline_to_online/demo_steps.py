"""What the demos of all scenes share: data, time, a port, and a server that answers."""

from __future__ import annotations

import json
import logging
import socket
import time
import urllib.error
import urllib.request
from typing import Any

from data_exchange_center.errors import DataUnavailable, NotReady
from data_exchange_center.programs import ProgramFailed, run_program
from data_exchange_center.settings import Settings

log = logging.getLogger("marquee")

SERVER_START_S = 90.0
GENERATED_CLICKS = 80_000  # rows that stand in for Criteo's sample, which has as many


def with_available_data(settings: Settings) -> Settings:
    """The settings, or the same on generated data when a public dataset can be fetched from nowhere.

    Data that the user pointed to is never replaced: a path that does not exist stops the demo.
    """
    named = bool(settings.data.source) or settings.dataset_name != settings.data.dataset
    try:
        run_program("offline/datasets/s0_fetch_data.py", [], settings)
    except ProgramFailed as error:
        if error.code != DataUnavailable.code or named:
            raise
        log.warning("%s", error.message)
        generated = "synthetic" if settings.scene == "movielens" else f"{settings.scene}-synthetic"
        log.warning("going on with generated data (DATASET=%s)", generated)
        smaller = {"data.synthetic_clicks": min(settings.data.synthetic_clicks, GENERATED_CLICKS)}
        return settings.with_values(**{"data.dataset": generated, "data.source": "", **smaller})
    return settings


def timed(seconds: dict[str, float], stage: str, function: Any, *arguments: Any) -> Any:
    """Calls the function and notes how long it took."""
    log.info("== %s", stage)
    started = time.perf_counter()
    result = function(*arguments)
    seconds[stage] = round(time.perf_counter() - started, 2)
    return result


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or another one when somebody listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError:
            with socket.socket() as other:
                other.bind((host, 0))
                log.warning("port %d is in use; the demo's server takes another one", wanted)
                return int(other.getsockname()[1])
    return wanted


def wait_until_serving(url: str, release: str) -> None:
    """Returns when the server answers from this release; NotReady when it does not within `SERVER_START_S`."""
    deadline = time.monotonic() + SERVER_START_S
    state = "no answer"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:  # noqa: S310 - our own http server
                state = response.read().decode()
                if json.loads(state).get("release") == release:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            state = str(error)
        time.sleep(0.1)
    raise NotReady(f"{url}/readyz: not serving {release} after {SERVER_START_S:.0f} s: {state}")
