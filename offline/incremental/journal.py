"""What a job has done so far, on disk: one that is killed goes on where it was, unless what it began with has changed since."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_json, write_json

JOURNAL = "journal.json"


class DayJournal:
    """The journal of one job, in the folder of its unfinished work.

    Args:
        folder: of the work; emptied when it was begun with another head.
        head: all that the work depends on.

    Attributes:
        fresh: the work begins now.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.folder, self._head = folder, dict(head)
        try:
            found = read_json(folder / JOURNAL)
            same = found["head"] == self._head
            self._done: dict[str, Any] = dict(found["done"]) if same else {}
        except (DataError, KeyError, TypeError, ValueError):
            same, self._done = False, {}
        self.fresh = not same
        if self.fresh:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._write()

    def once(self, step: str, function: Callable[[], Any]) -> Any:
        """The step's result (JSON values): noted when it was done before, else made now and on disk before this returns."""
        if step not in self._done:
            self._done[step] = function()
            self._write()
        return self._done[step]

    def _write(self) -> None:
        write_json(self.folder / JOURNAL, {"head": self._head, "done": self._done})

    def close(self) -> None:
        """The work is done and committed."""
        shutil.rmtree(self.folder, ignore_errors=True)
