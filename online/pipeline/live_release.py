"""Which release a process answers from: follows the scene's pointer in the background, so that no request ever waits.

A thread reads the pointer every `poll` seconds. When it names another release, that one is opened, verified and warmed up
beside the one in use, and only then takes its place with one assignment. A release that cannot be loaded leaves the one
in use where it is; the reason is kept and it is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from data_exchange_center.errors import MarqueeError, StoreError
from data_exchange_center.release import Release

log = logging.getLogger("marquee.releases")

KEEP = 3
RETRY_SECONDS = 5.0


class Opened(Protocol):
    """What is made of a release to answer from it."""

    @property
    def release(self) -> Release: ...


View = TypeVar("View", bound=Opened)


class LiveRelease(Generic[View]):
    """The release in use, and the last few for a quick way back.

    Args:
        pointer: reads the scene's live release id; None when nothing was ever published.
        load: opens, verifies and warms up a release by id.
        poll: seconds between two looks at the pointer.
        changed: called with (release id, whether it loaded) after each attempt to load one.
    """

    def __init__(
        self,
        pointer: Callable[[], str | None],
        load: Callable[[str], View],
        poll: float,
        changed: Callable[[str, bool], None] = lambda release, loaded: None,
    ) -> None:
        self._pointer, self._load, self._poll, self._changed = pointer, load, poll, changed
        self._current: View | None = None
        self._loaded: OrderedDict[str, View] = OrderedDict()
        self._refreshing = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._failed: tuple[str | None, float] = (
            None,
            0.0,
        )  # the release that would not load, and when to try it again
        self.reason = "the release pointer was not read yet"

    def current(self) -> View | None:
        """The release in use; None before the first one is loaded."""
        return self._current

    def start(self) -> None:
        """Looks at the pointer once, here, and from then on in a thread of its own."""
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="live-release", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def moved(self, live: str | None) -> None:
        """Tells that a request saw another live release: the thread looks at once instead of at its next turn."""
        current = self._current
        if live is not None and (current is None or current.release.id != live) and self._failed[0] != live:
            self._wake.set()

    def refresh(self, *, again: bool = True) -> View | None:
        """Looks at the pointer now and loads what it names; returns the release in use afterwards.

        Args:
            again: also try a release that failed to load a moment ago.
        """
        with self._refreshing:
            try:
                live = self._pointer()
            except StoreError as error:
                self.reason = f"the release pointer cannot be read: {error.message}"
                return self._current
            if live is None:
                self.reason = "no release was ever published; run `make publish`"
                return self._current
            current = self._current
            waits = live == self._failed[0] and time.monotonic() < self._failed[1] and not again
            if (current is None or current.release.id != live) and not waits:
                self._switch(live)
            return self._current

    def _switch(self, live: str) -> None:
        view = self._loaded.pop(live, None)
        if view is None:
            try:
                view = self._load(live)
            except (MarqueeError, OSError, ValueError) as error:
                if self._failed[0] != live:
                    log.error("release %s cannot be loaded, answering from the one before: %s", live, error)
                self._failed = (live, time.monotonic() + RETRY_SECONDS)
                self.reason = f"release {live} cannot be loaded: {error}"
                self._changed(live, False)
                return
        self._loaded[live] = view
        while len(self._loaded) > KEEP:
            self._loaded.popitem(last=False)
        self._failed = (None, 0.0)
        self.reason = ""
        self._current = view
        log.info("answering from release %s", live)
        self._changed(live, True)

    def _follow(self) -> None:
        while not self._stopped:
            self._wake.wait(self._poll)
            self._wake.clear()
            if not self._stopped:
                try:
                    self.refresh(again=False)
                except Exception:
                    log.exception("following the release pointer failed; trying again")
