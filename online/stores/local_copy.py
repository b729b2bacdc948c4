"""Copies on this machine's disk of the small facts that serving cannot do without while the user store is away."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_json, write_json

log = logging.getLogger("marquee.stores")

LIVE = "live"  # the release pointer
BLOCKED = "blocked"  # items taken out of every answer


class LocalCopy:
    """One fact, a JSON value: one small file per scene, `<folder>/<scene>.<name>.json`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._written: dict[str, Any] = {}
        self._read: dict[str, tuple[tuple[int, int], Any]] = {}  # scene -> (the file's identity, value) as read last

    def path(self, scene: str) -> Path:
        """Where a scene's copy lies."""
        return self._folder / f"{scene}.{self._name}.json"

    def write(self, scene: str, value: Any) -> None:
        """Notes what the store said; touches the disk only when it is news to this process. A disk that refuses is only
        logged: the fact itself lies in the store, and reading it must not fail for the sake of its copy."""
        if scene in self._written and self._written[scene] == value:
            return
        try:
            if self.read(scene) != value:
                noted = datetime.now(UTC).isoformat(timespec="seconds")
                write_json(self.path(scene), {"value": value, "noted": noted})
            self._written[scene] = value
        except OSError as error:
            log.warning("%s: the copy could not be written: %s", self.path(scene), error)

    def read(self, scene: str) -> Any:
        """What the store said when it was last asked by any process of this machine; None when there is no copy that can be
        read."""
        path = self.path(scene)
        try:
            found = path.stat()
            identity = (
                found.st_ino,
                found.st_mtime_ns,
            )  # a file that is replaced within a tick of the clock is another one
            known = self._read.get(scene)
            if known is None or known[0] != identity:
                content = read_json(path)
                known = (identity, content.get("value") if isinstance(content, dict) else None)
                self._read[scene] = known
        except (DataError, OSError):
            return None
        return known[1]
