"""One process at a time: a file lock that the kernel lets go when its holder dies, and a note of who holds it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from data_exchange_center.errors import DataError, LockHeld
from data_exchange_center.workspace import read_json, write_json


@contextmanager
def owned_lock(folder: Path, name: str, doing: str, work: str, wait: float = 0.0) -> Iterator[None]:
    """Holds `<folder>/<name>.lock`.

    Args:
        doing: what its holder is doing, as others are told: "is writing to the stores".
        work: what is done under it, for the same message.
        wait: seconds to wait for another holder.

    Raises:
        LockHeld: somebody else holds it; the message says who, where, since when and for what.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / f"{name}.owner.json"
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        try:
            held = read_json(owner)
            holder = f"process {held['pid']} on {held['host']} since {held['since']} ({held['work']})"
        except (DataError, KeyError, TypeError):
            holder = "a process that has not said who it is yet"
        raise LockHeld(f"{folder}: {holder} {doing}; wait for it, then try again") from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "work": work})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
