"""Results that the server keeps: one file each, the newest ones, bounded in number and size."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from data_exchange_center.errors import TooLarge
from data_exchange_center.workspace import atomic_path

ABANDONED_S = 3600.0  # a temporary file this old belongs to a process that was killed


class SavedResults:
    """A folder of results. Several processes may share it.

    Args:
        folder: made when it is first written to.
        most: files that stay.
        most_bytes: of all of them together.
    """

    def __init__(self, folder: Path, most: int, most_bytes: int) -> None:
        self._folder, self._most, self._most_bytes = folder, most, most_bytes

    def keep(self, pieces: Iterable[bytes], suffix: str) -> str:
        """Writes a result, whole or not at all, and removes the oldest ones beyond the limits; returns its name.

        Raises:
            TooLarge: it is larger than all results may be together.
        """
        name = f"{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(8)}{suffix}"
        size = 0
        with atomic_path(self._folder / name) as temporary, temporary.open("wb") as file:
            for piece in pieces:
                size += file.write(piece)
                if size > self._most_bytes:
                    raise TooLarge(
                        f"the result is larger than {self._most_bytes >> 20} MiB (setting serve.upload_keep_mib)"
                    )
        self._prune(name)
        return name

    def _prune(self, newest: str) -> None:
        total = 0
        found = []
        for path in self._folder.iterdir():
            try:
                state = path.stat()
            except FileNotFoundError:  # another process prunes too
                continue
            if path.name.startswith("."):
                if time.time() - state.st_mtime > ABANDONED_S:
                    path.unlink(missing_ok=True)
                continue
            found.append((path.name == newest, state.st_mtime_ns, state.st_size, path))
        for place, (_, _, size, path) in enumerate(sorted(found, reverse=True)):
            total += size
            if place >= self._most or total > self._most_bytes:
                path.unlink(missing_ok=True)
