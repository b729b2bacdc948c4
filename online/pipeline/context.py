"""What travels with one request from the first look-up to the response: its release, its clock and what it had to do without.

Every question to a store goes through `ask`: it has a deadline from the request's budget, and a store that failed several times
in a row is not asked at all until it answers again (breaker.py). Parts that can be missing are named in `degraded`. The ladder,
from the first rung down:

    user_store     profile and history from the release on disk, blocked items from their copy; events since then are not known
    item_index     the vector channel is left out, and the term channel where the index answers that too
    user_features  features from the release on disk, as they were published
    item_features  the same for items
    scorer         the list is ordered by the merged recall scores; `like` repeats that score and is not calibrated
    recall         the index is away and no other channel was asked or found anything: popular items
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, TypeVar

from data_exchange_center.errors import StoreUnavailable
from online.pipeline.breaker import Breaker
from online.pipeline.release_view import ReleaseView

Answered = TypeVar("Answered")
Part = Literal["user_store", "item_index", "user_features", "item_features", "scorer", "recall"]

log = logging.getLogger("marquee.pipeline")
_logged: dict[Part, float] = {}  # when each part's absence was logged last

# Share of a request's budget that one call may take, so that a store that hangs leaves time for the rungs below it.
SHARES: dict[Part, float] = {"user_store": 0.25, "item_index": 0.4, "user_features": 0.25, "scorer": 0.4}


def make_breakers(opened: Callable[[Part], None] = lambda part: None) -> dict[Part, Breaker]:
    """A breaker per part that a store answers, for all requests of a process; `opened` is called with a part that opens."""
    return {part: Breaker(part, opened=lambda part=part: opened(part)) for part in SHARES}  # type: ignore[misc]


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
        breakers: of the process; a part without one is always asked.
    """

    view: ReleaseView
    request_id: str
    budget: float
    started: float = field(default_factory=time.perf_counter)
    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[Part] = field(default_factory=list)
    live: str | None = None
    breakers: Mapping[Part, Breaker] = field(default_factory=dict, repr=False)

    def ask(self, part: Part, question: Callable[[float], Answered]) -> Answered:
        """Puts a question to a store; `question` gets the seconds that it may take.

        Raises:
            StoreError: as the store says.
            StoreUnavailable: also when the store was left alone, or the budget is used up.
        """
        timeout = self.timeout(part)
        breaker = self.breakers.get(part)
        if breaker is None:
            return question(timeout)
        if not breaker.admits():
            raise StoreUnavailable(f"{part}: failed a moment ago and is left alone for now")
        try:
            answered = question(timeout)
        except StoreUnavailable:
            if timeout >= SHARES[part] * self.budget:  # with less than its share, it is the request that was late
                breaker.failed()
            raise
        breaker.succeeded()
        return answered

    def timeout(self, part: Part) -> float:
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
