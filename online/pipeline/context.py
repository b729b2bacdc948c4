"""What travels with one request from the first look-up to the response: its release, its clock and what it had to do without.

Parts that can be missing are named in `degraded`. The ladder, from the first rung down:

    user_store     profile and history from the release on disk; events since then are not known
    item_index     the vector and term channels are left out
    user_features  features from the release on disk, as they were published
    item_features  the same for items
    scorer         the list is ordered by the merged recall scores; `like` repeats that score and is not calibrated
    recall         no channel answered: popular items
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from data_exchange_center.errors import StoreUnavailable
from online.pipeline.release_view import ReleaseView

Part = Literal["user_store", "item_index", "user_features", "item_features", "scorer", "recall"]

log = logging.getLogger("marquee.pipeline")
_logged: dict[Part, float] = {}  # when each part's absence was logged last

# Share of a request's budget that one call may take, so that a store that hangs leaves time for the rungs below it.
SHARES = {"user_store": 0.3, "item_index": 0.3, "user_features": 0.3, "scorer": 0.5}


@dataclass
class RequestContext:
    """One request's state; used by one thread.

    Attributes:
        view: the release that this request answers from, whatever goes live meanwhile.
        request_id: as returned in the answer.
        budget: seconds that the answer may take.
        started: `time.perf_counter()` at its start.
        timings_ms: stage -> milliseconds.
        degraded: parts that this answer had to do without, in the order met.
        live: the scene's live release as the user store told this request; None when it did not.
    """

    view: ReleaseView
    request_id: str
    budget: float
    started: float = field(default_factory=time.perf_counter)
    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[Part] = field(default_factory=list)
    live: str | None = None

    def timeout(self, part: str) -> float:
        """Seconds that a call to this part may take.

        Raises:
            StoreUnavailable: the budget is used up, so the call is not worth making.
        """
        left = self.budget - (time.perf_counter() - self.started)
        if left <= 0:
            raise StoreUnavailable(f"{part}: the request's budget of {self.budget * 1000:.0f} ms is used up")
        return min(left, SHARES[part] * self.budget)

    def without(self, part: Part, error: Exception | None = None) -> None:
        """Notes that this answer does without a part, and logs why, at most once a second for each part."""
        if part not in self.degraded:
            self.degraded.append(part)
        if error is not None and time.monotonic() - _logged.get(part, 0.0) > 1.0:
            _logged[part] = time.monotonic()
            log.warning("request %s: without %s: %s", self.request_id, part, error)

    def stage(self, name: str) -> Stage:
        """Times a block: `with context.stage("recall"): ...`."""
        return Stage(self.timings_ms, name)


class Stage:
    """Adds the time of a block to a request's timings."""

    __slots__ = ("name", "started", "timings")

    def __init__(self, timings: dict[str, float], name: str) -> None:
        self.timings, self.name = timings, name

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        spent = (time.perf_counter() - self.started) * 1000.0
        self.timings[self.name] = self.timings.get(self.name, 0.0) + spent
