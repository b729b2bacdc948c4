"""A circuit breaker per store: one that failed several times in a row is not asked again by every request.

    closed      every call goes through; `failures` in a row open it
    open        no call goes through, so a store that hangs costs nothing and one in trouble is left alone
    half open   after a pause one call goes through: success closes the breaker, failure doubles the pause, up to `longest`

Source: M. Nygard, "Release It!", 2nd edition, 2018, chapter 5.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("marquee.pipeline")

FAILURES = 3
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 0.5


class Breaker:
    """The breaker of one store in one process; safe to use from several threads.

    Args:
        name: of the store, for the log.
        failures: in a row, that open it.
        first, longest: seconds until the first try, and at most between two tries.
        opened: called when it opens.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        failures: int = FAILURES,
        first: float = FIRST_PAUSE_S,
        longest: float = LONGEST_PAUSE_S,
        opened: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._limit, self._first, self._longest = name, failures, first, longest
        self._opened, self._clock = opened, clock
        self._lock = threading.Lock()
        self._failed = 0
        self._pause = first
        self._try_at: float | None = None  # when the next try is due; None while closed

    @property
    def closed(self) -> bool:
        return self._try_at is None

    def admits(self) -> bool:
        """Whether a call may be made now; while the breaker is open, True for one caller each time a try is due."""
        if self._try_at is None:
            return True
        with self._lock:
            if self._try_at is None:
                return True
            now = self._clock()
            if now < self._try_at:
                return False
            self._try_at = now + self._pause  # taken by this caller; should it never report, another one tries later
            return True

    def succeeded(self) -> None:
        """A call was answered."""
        if self._try_at is None and not self._failed:
            return
        with self._lock:
            if self._try_at is not None:
                log.warning("%s answers again", self._name)
            self._failed, self._pause, self._try_at = 0, self._first, None

    def failed(self) -> None:
        """A call was not answered."""
        with self._lock:
            self._failed += 1
            if self._failed < self._limit:
                return
            newly = self._try_at is None
            self._pause = self._first if newly else min(2 * self._pause, self._longest)
            self._try_at = self._clock() + self._pause
        if newly:
            log.warning("%s failed %d times in a row and is left alone for a while", self._name, self._limit)
            self._opened()
