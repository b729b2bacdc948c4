"""Works off the event stream into the archive that the daily job trains on: `<store>/events/<scene>/`.

Any number of workers may run; each event is archived once, whatever dies when. A batch is written whole, under a lock and only
with what is still this worker's, and is confirmed afterwards: a worker that died in between leaves events that another takes
over, finds in the archive and only confirms.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from filelock import FileLock

from data_exchange_center.errors import StoreUnavailable
from data_exchange_center.event_archive import Archived, EventArchive, archive_folder
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from online.stores.event_queue import EventQueue
from online.stores.open import open_users
from online.stores.ports import Event

log = logging.getLogger("marquee.events")

RETRY_S = 1.0  # after the store was away
WAIT_S = 1.0  # for new events before looking whether to stop


class EventWorker:
    """One worker of a scene.

    Args:
        queue: of the events. archive: where they go.
        name: of this worker; two that run at the same time have different ones.
        batch: events of one archive batch at most. linger: seconds that events wait for a batch to fill.
        idle: seconds after which another worker's unconfirmed events are taken over.
    """

    def __init__(
        self, queue: EventQueue, archive: EventArchive, scene: str, name: str, batch: int, linger: float, idle: float
    ) -> None:
        self.queue, self.archive, self.scene, self.name = queue, archive, scene, name
        self.batch, self.linger, self.idle = batch, linger, idle
        archive.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(archive.folder / "archive.lock")
        self._looked = 0.0

    def round(self, wait: float) -> int:
        """Takes what there is, up to one batch, archives and confirms it; returns how many events were new to the archive."""
        taken = self._left_behind()
        if not taken:
            taken = self._gathered(wait)
        return self._archived(taken) if taken else 0

    def _left_behind(self) -> list[tuple[str, Event]]:
        if time.monotonic() - self._looked < self.idle / 2:
            return []
        taken = self.queue.take_over(self.scene, self.name, self.batch, self.idle)
        if not taken:  # else there may be more: look again at once
            self._looked = time.monotonic()
        return taken

    def _gathered(self, wait: float) -> list[tuple[str, Event]]:
        taken = self.queue.take(self.scene, self.name, self.batch, wait)
        until = time.monotonic() + self.linger
        while taken and len(taken) < self.batch and (left := until - time.monotonic()) > 0:
            taken += self.queue.take(self.scene, self.name, self.batch - len(taken), left)
        return taken

    def _archived(self, taken: list[tuple[str, Event]]) -> int:
        positions = sorted((position for position, _ in taken), key=lambda one: tuple(map(int, one.split("-"))))
        with self._lock:
            for leftover in self.archive.folder.glob(".batch-*.tmp"):  # of a worker that died while it wrote
                shutil.rmtree(leftover, ignore_errors=True)
            mine = self.queue.still_mine(self.scene, self.name, positions)
            new = mine - self.archive.holds(mine)
            self.archive.add([Archived(position, **asdict(event)) for position, event in taken if position in new])
        self.queue.confirm(self.scene, [position for position in positions if position in mine])
        return len(new)


def work(settings: Settings, *, until_empty: bool, stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Runs one worker.

    Args:
        until_empty: end when every event is confirmed; otherwise only when `stopped` says so.

    Returns:
        archived: events; batches in the archive, and its days.
    """
    scene, chosen = settings.scene, settings.events
    archive = EventArchive(archive_folder(settings))
    name = f"{socket.gethostname()}-{os.getpid()}"
    archived = 0
    with closing(open_users(settings)) as users:
        worker = EventWorker(
            users.events_queue, archive, scene, name, chosen.batch, chosen.linger_seconds, chosen.idle_seconds
        )
        while not stopped():
            try:
                count = worker.round(0.0 if until_empty else WAIT_S)
                if count:
                    archived += count
                    log.info("  %d events archived", archived)
                elif until_empty and users.events_queue.waiting(scene) == (0, 0):
                    break
                if chosen.keep_hours:
                    users.events_queue.forget(scene, time.time() - 3600 * chosen.keep_hours)
            except StoreUnavailable as error:
                log.warning("%s; trying again", error.message)
                time.sleep(RETRY_S)
    return {"archived": archived, "batches": len(archive.batches()), "days": archive.days()}


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.add_argument("--until-empty", action="store_true", help="end when every event is archived")
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: ended.append(received))

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return work(settings, until_empty=parsed.until_empty, stopped=lambda: bool(ended))

    run_step("s3_event_worker", arguments, step, argv)


if __name__ == "__main__":
    main()
