"""A few opened releases per process: opened on first use, once, whoever asks; the least recently used one is let go."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Opened = TypeVar("Opened")


class OpenReleases(Generic[Opened]):
    """At most `limit` opened releases; safe to use from several threads.

    Args:
        opener: opens one; whatever it raises reaches the caller, and the next caller tries again.
        limit: those beyond it are forgotten (requests that still hold one go on with it).
    """

    def __init__(self, opener: Callable[[str], Opened], limit: int = 4) -> None:
        self._opener = opener
        self._limit = limit
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}

    def get(self, release: str) -> Opened:
        """The opened release; opening one does not hold up users of the others."""
        with self._lock:
            found = self._opened.get(release)
            if found is not None:
                self._opened.move_to_end(release)
                return found
            opening = self._opening.setdefault(release, threading.Lock())
        with opening:
            with self._lock:
                if release in self._opened:
                    return self._opened[release]
            try:
                opened = self._opener(release)
                with self._lock:
                    self._opened[release] = opened
                    while len(self._opened) > self._limit:
                        self._opened.popitem(last=False)
            finally:
                with self._lock:
                    self._opening.pop(release, None)
            return opened

    def forget(self, release: str) -> None:
        """Lets one go, so that the next use opens it anew."""
        with self._lock:
            self._opened.pop(release, None)

    def clear(self) -> None:
        """Lets all go."""
        with self._lock:
            self._opened.clear()
