"""Which release each worker answers from, in memory that all workers of a server share.

A flip reaches the workers one after another within the polling time. Whoever waits for a release (`/readyz`, the admin
routes) wants to know when the last of them has it, whichever worker happens to answer.
"""

from __future__ import annotations

import mmap
import os
import struct

_SLOT = struct.Struct("<q120s")
SLOTS = 256


class WorkerBoard:
    """A slot per worker; made before the fork. One process writes a slot, all read."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOTS * _SLOT.size)
        self._slot = 0

    def claim(self, number: int) -> None:
        """Takes the slot of this process. `number` grows with every worker that is started."""
        self._slot = number % SLOTS
        self.announce("")

    def announce(self, release: str) -> None:
        """Tells which release this process answers from; "" while it has none."""
        self._write(self._slot, os.getpid(), release)

    def forget(self, number: int) -> None:
        """Frees the slot of a worker that ended."""
        self._write(number % SLOTS, 0, "")

    def releases(self) -> dict[int, str]:
        """Process id -> release, "" for a worker that has none yet."""
        found = {}
        for slot in range(SLOTS):
            pid, release = _SLOT.unpack_from(self._memory, slot * _SLOT.size)
            if pid:
                found[int(pid)] = release.rstrip(b"\0").decode(errors="replace")
        return found

    def agreed(self) -> str | None:
        """The release that every worker answers from; None while one has none or they differ."""
        names = set(self.releases().values())
        return names.pop() or None if len(names) == 1 else None

    def _write(self, slot: int, pid: int, release: str) -> None:
        _SLOT.pack_into(self._memory, slot * _SLOT.size, pid, release.encode()[:120])
