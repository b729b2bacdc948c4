"""The release pointer's copy on this machine's disk: what is served when the user store is away."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_json, write_json

log = logging.getLogger("marquee.stores")


class PointerCopy:
    """One small JSON file per scene, `<folder>/<scene>.live.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, str] = {}

    def path(self, scene: str) -> Path:
        """Where a scene's copy lies."""
        return self._folder / f"{scene}.live.json"

    def write(self, scene: str, release: str) -> None:
        """Notes what is live; touches the disk only when it is news to this process. A disk that refuses is only logged:
        the pointer itself lies in the store, and reading it must not fail for the sake of its copy."""
        if self._written.get(scene) == release:
            return
        try:
            if self.read(scene) != release:
                noted = datetime.now(UTC).isoformat(timespec="seconds")
                write_json(self.path(scene), {"release": release, "noted": noted})
            self._written[scene] = release
        except OSError as error:
            log.warning("%s: the copy of the release pointer could not be written: %s", self.path(scene), error)

    def read(self, scene: str) -> str | None:
        """What was live when the store was last asked; None when there is no copy or it does not hold a release."""
        try:
            content = read_json(self.path(scene))
        except DataError:
            return None
        release = content.get("release") if isinstance(content, dict) else None
        return release if isinstance(release, str) else None
