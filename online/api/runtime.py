"""What one server process holds: its stores, the release it answers from, and the writer of answered lists.

Made before the fork with settings alone, opened after it: connections, threads and model sessions belong to one process.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from functools import cache

from flask import current_app
from prometheus_client import Histogram

from data_exchange_center.errors import MarqueeError, NotReady, StoreUnavailable
from data_exchange_center.settings import Settings
from online.api import metrics
from online.api.worker_board import WorkerBoard
from online.pipeline.answer_log import AnswerLog
from online.pipeline.context import Part, make_breakers
from online.pipeline.live_release import LiveRelease
from online.pipeline.recommend import Policy, warm_up
from online.pipeline.release_view import ReleaseView, load_view
from online.stores.ports import Stores, UserStore

log = logging.getLogger("marquee.runtime")

EXTENSION = "marquee"
PROBE_SECONDS = 0.5


class Runtime:
    """One process's share of the server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.budget = settings.serve.budget_ms / 1000.0
        self.policy = Policy.of(settings)
        self.breakers = make_breakers(_count_opening)
        self.answers: AnswerLog | None = None
        self.board = WorkerBoard()
        self._preloaded: dict[str, ReleaseView] = {}
        self._stores: Stores | None = None
        self._releases: LiveRelease | None = None

    @property
    def stores(self) -> Stores:
        if self._stores is None:
            raise NotReady("the server is starting")
        return self._stores

    @property
    def releases(self) -> LiveRelease:
        if self._releases is None:
            raise NotReady("the server is starting")
        return self._releases

    def preload(self, release: str) -> None:
        """Opens a release before the fork, so that the workers share its arrays.

        Raises:
            ReleaseError: a file is missing or altered; the message names it.
        """
        self._preloaded[release] = load_view(self.settings, release)

    def open(self, open_stores: Callable[[Settings], Stores]) -> None:
        """Opens the stores, loads the live release, warms it up and starts the background threads."""
        stores = self._stores = open_stores(self.settings)
        scene = self.settings.scene
        self._releases = LiveRelease(
            pointer=lambda: self._look(stores.users),
            load=self._load,
            poll=self.settings.serve.release_poll_ms / 1000.0,
            changed=self._changed,
        )
        self._releases.start()
        if self.settings.serve.log_answers:
            self.answers = AnswerLog(stores.users, scene, _count_answers)
        # The heap is large and lives as long as the process: out of the collector's sight it costs no pauses.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def close(self) -> None:
        """Ends the threads, then closes the stores."""
        if self._releases is not None:
            self._releases.stop()
        if self.answers is not None:
            self.answers.close()
        if self._stores is not None:
            self._stores.close()
        gc.unfreeze()  # lets extension modules give back what they hold when the process ends

    def view(self) -> ReleaseView:
        """The release that a request starting now answers from.

        Raises:
            NotReady: there is none yet; the message says why.
        """
        view = self.releases.current() or self.releases.refresh(again=False)
        if view is None:
            raise NotReady(f"not ready: {self.releases.reason}")
        return view

    def probe(self) -> dict[str, str]:
        """Each dependency's problem, "" when it answers."""
        if self._stores is None:
            return {}
        found = {}
        for name, ping in (
            ("user_store", self._stores.users.ping),
            ("item_index", self._stores.items.ping),
            ("feature_store", self._stores.features.ping),
            ("scorer", self._stores.scorer.ping),
        ):
            try:
                ping(PROBE_SECONDS)
                found[name] = ""
            except MarqueeError as error:
                found[name] = error.message
        return found

    def stage_seconds(self, stage: str) -> Histogram:
        """The metric of one stage's time."""
        return _stage(stage)

    def _look(self, users: UserStore) -> str | None:
        scene = self.settings.scene
        try:
            return pointer(users, scene, self.budget)
        finally:  # reading the pointer brings the blocked items up to date
            metrics.BLOCKED_ITEMS.set(len(users.blocked_copy(scene)))

    def _changed(self, release: str, loaded: bool) -> None:
        _count_load(release, loaded)
        if loaded:
            self.board.announce(release)

    def _load(self, release: str) -> ReleaseView:
        view = self._preloaded.pop(release, None) or load_view(self.settings, release)
        warm_up(view, self.stores, self.policy)
        return view


@cache
def _stage(stage: str) -> Histogram:
    return metrics.STAGES.labels(stage)


_announced: set[str] = set()


def pointer(users: UserStore, scene: str, timeout: float) -> str | None:
    """The scene's live release; from the pointer's copy on disk while the store is away."""
    try:
        return users.live(scene, timeout)
    except StoreUnavailable:
        copied = users.live_copy(scene)
        if copied is None:
            raise
        return copied


def _count_load(release: str, loaded: bool) -> None:
    metrics.RELEASE_LOADS.labels("ok" if loaded else "failed").inc()
    if loaded:
        for other in _announced - {release}:
            metrics.RELEASE_INFO.labels(other).set(0)
        _announced.add(release)
        metrics.RELEASE_INFO.labels(release).set(1)


def _count_opening(part: Part) -> None:
    metrics.BREAKER_OPENINGS.labels(part).inc()


def _count_answers(outcome: str, count: int) -> None:
    metrics.ANSWERS_LOGGED.labels(outcome).inc(count)


def runtime() -> Runtime:
    """The runtime of the application that handles the current request."""
    own: Runtime = current_app.extensions[EXTENSION]
    return own
