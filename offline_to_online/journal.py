"""What a publisher has done so far, on disk: one that is killed goes on where it was, and whoever looks sees how far it came."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_exchange_center.errors import DataError
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_json, sha256, write_json


class Journal:
    """The journal of publishing one release: `<store>/online/<scene>.publish.json`.

    A journal that was written for another release, or for another content of this one, starts empty.
    """

    def __init__(self, settings: Settings, release: Release) -> None:
        self._path = journal_path(settings)
        self._head: dict[str, Any] = {
            "release": release.id,
            "manifest_sha256": sha256(release.path / "manifest.json"),
            "stores": settings.stores.model_dump(mode="json"),
        }
        found = read_journal(settings)
        same = found is not None and all(found.get(name) == value for name, value in self._head.items())
        self.done: dict[str, dict[str, Any]] = found["done"] if found is not None and same else {}

    def note(self, step: str, result: dict[str, Any]) -> None:
        """A step is done; on disk before this returns."""
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.done[step] = {"finished": finished, "result": result}
        write_json(self._path, {**self._head, "done": self.done})

    def close(self) -> None:
        """The release is published: nothing is left to go on with."""
        self._path.unlink(missing_ok=True)


def journal_path(settings: Settings) -> Path:
    """Where the scene's journal lies."""
    return Workspace(settings).online / f"{settings.scene}.publish.json"


def read_journal(settings: Settings) -> dict[str, Any] | None:
    """The journal of an unfinished publish; None when there is none that can be read."""
    try:
        found = read_json(journal_path(settings))
    except DataError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("done"), dict) else None
