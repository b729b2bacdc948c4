"""What one server process holds: its stores, the releases it answers from, and the writer of answered lists.

Three scenes are served side by side, each from its own live release: lists from the settings' scene, uploaded rows from
`serve.upload_scene`, predictions of single rows from `serve.predict_scene`. None waits for another. Where the settings' scene is
one of rows, there are no lists.

Made before the fork with settings alone, opened after it: connections, threads and model sessions belong to one process.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

from flask import current_app
from prometheus_client import Histogram

from data_exchange_center.errors import MarqueeError, NotReady, StoreUnavailable, TooManyRequests
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.api import metrics
from online.api.worker_board import WorkerBoard
from online.pipeline.answer_log import AnswerLog
from online.pipeline.context import Part, make_breakers
from online.pipeline.live_release import LiveRelease
from online.pipeline.policy import Policy
from online.pipeline.predict import OnlineVocabularies
from online.pipeline.predict_view import PredictView, TextEncoders, load_predict_view
from online.pipeline.recommend import warm_up
from online.pipeline.release_view import ReleaseView, load_view
from online.pipeline.row_scoring import row_threads
from online.pipeline.row_view import RowView, load_row_view
from online.pipeline.saved_results import SavedResults
from online.stores.ports import Stores, UserStore

log = logging.getLogger("marquee.runtime")

EXTENSION = "marquee"
PROBE_SECONDS = 0.5
LOAD_SECONDS = 30.0  # for a model that rows wait for, not a list


class Runtime:
    """One process's share of the server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.budget = settings.serve.budget_ms / 1000.0
        self.policy = Policy.of(settings)
        self.breakers = make_breakers(_count_opening)
        self.answers: AnswerLog | None = None
        self.board = WorkerBoard()
        serve = settings.serve
        self.rows_only = settings.rows_only
        self.results = SavedResults(
            Workspace(settings).online / "uploads", serve.upload_keep, serve.upload_keep_mib << 20
        )
        self._preloaded: dict[str, ReleaseView | RowView] = {}
        self._stores: Stores | None = None
        self._lists: LiveRelease[ReleaseView] | None = None
        self._rows: LiveRelease[RowView] | None = None
        self._predictions: LiveRelease[PredictView] | None = None
        self._vocabularies: OnlineVocabularies | None = None
        self._encoders = TextEncoders()
        self._row_threads: ThreadPoolExecutor | None = None
        self._turns = threading.BoundedSemaphore(serve.uploads_at_once)

    @property
    def stores(self) -> Stores:
        if self._stores is None:
            raise NotReady("the server is starting")
        return self._stores

    @property
    def releases(self) -> LiveRelease[Any]:
        """The release of the settings' scene."""
        if self.settings.scene == self.settings.serve.upload_scene:
            return self.rows
        return self.predictions if self.rows_only else self.lists

    @property
    def lists(self) -> LiveRelease[ReleaseView]:
        """The release that lists come from."""
        if self._lists is None:
            why = f"scene {self.settings.scene} scores rows and has no lists" if self.rows_only else "it is starting"
            raise NotReady(f"this server answers no lists: {why}")
        return self._lists

    @property
    def rows(self) -> LiveRelease[RowView]:
        """The release that scores uploaded rows."""
        if self._rows is None:
            raise NotReady("the server is starting")
        return self._rows

    @property
    def predictions(self) -> LiveRelease[PredictView]:
        """The release that predicts single rows."""
        if self._predictions is None:
            raise NotReady("the server is starting")
        return self._predictions

    @property
    def vocabularies(self) -> OnlineVocabularies:
        """The growing vocabularies of the scene that predicts single rows."""
        if self._vocabularies is None:  # two threads may both make them: what one forgets it asks again
            serve = self.settings.serve
            store = self.stores.users.vocabularies
            self._vocabularies = OnlineVocabularies(store, serve.predict_scene, serve.new_tokens_per_minute)
        return self._vocabularies

    @property
    def row_threads(self) -> ThreadPoolExecutor:
        if self._row_threads is None:
            raise NotReady("the server is starting")
        return self._row_threads

    def preload(self, release: str) -> None:
        """Opens a release before the fork, so that the workers share its arrays.

        Raises:
            ReleaseError: a file is missing or altered; the message names it.
        """
        if self.settings.scene == self.settings.serve.upload_scene:
            self._preloaded[release] = load_row_view(self.settings, release)
        elif not self.rows_only:  # predictions hold a model session, which is the worker's own
            self._preloaded[release] = load_view(self.settings, release)

    def open(self, open_stores: Callable[[Settings], Stores]) -> None:
        """Opens the stores, loads the live releases, warms them up and starts the background threads."""
        stores = self._stores = open_stores(self.settings)
        serve, scene = self.settings.serve, self.settings.scene
        poll = serve.release_poll_ms / 1000.0
        if not self.rows_only:
            changed = partial(self._changed, scene)
            self._lists = LiveRelease(lambda: self._look(stores.users), self._load, poll, changed)
            self._lists.start()
            shown = serve.suppress_impressions_hours > 0
            if serve.log_answers or shown:
                self.answers = AnswerLog(stores.users, scene, _count_answers, lists=serve.log_answers, shown=shown)
        self._row_threads = row_threads(serve.upload_threads)
        changed = partial(self._changed, serve.upload_scene)
        look = partial(pointer, stores.users, serve.upload_scene, self.budget)
        self._rows = LiveRelease(look, self._load_rows, poll, changed)
        self._rows.start()
        changed = partial(self._changed, serve.predict_scene)
        look = partial(pointer, stores.users, serve.predict_scene, self.budget)
        self._predictions = LiveRelease(look, self._load_predictions, poll, changed)
        self._predictions.start()
        # The heap is large and lives as long as the process: out of the collector's sight it costs no pauses.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def close(self) -> None:
        """Ends the threads, then closes the stores."""
        for follower in (self._lists, self._rows, self._predictions):
            if follower is not None:
                follower.stop()
        if self._row_threads is not None:
            self._row_threads.shutdown(cancel_futures=True)
        if self.answers is not None:
            self.answers.close()
        if self._stores is not None:
            self._stores.close()
        gc.unfreeze()  # lets extension modules give back what they hold when the process ends

    def view(self) -> ReleaseView:
        """The release that a list asked for now comes from.

        Raises:
            NotReady: there is none yet; the message says why.
        """
        view = self.lists.current() or self.lists.refresh(again=False)
        if view is None:
            raise NotReady(f"not ready: {self.lists.reason}")
        return view

    def row_view(self) -> RowView:
        """The release that rows uploaded now are scored by.

        Raises:
            NotReady: there is none yet; the message says why, and what to do.
        """
        return _current(self.rows, self.settings.serve.upload_scene)

    def predict_view(self) -> PredictView:
        """The release that single rows are scored by now.

        Raises:
            NotReady: there is none yet; the message says why, and what to do.
        """
        return _current(self.predictions, self.settings.serve.predict_scene)

    @contextmanager
    def upload_turn(self) -> Iterator[None]:
        """One of the places for uploads.

        Raises:
            TooManyRequests: all are taken.
        """
        if not self._turns.acquire(blocking=False):
            raise TooManyRequests(
                f"{self.settings.serve.uploads_at_once} uploads are being scored already (setting serve.uploads_at_once)"
            )
        try:
            yield
        finally:
            self._turns.release()

    def probe(self) -> dict[str, str]:
        """Each dependency's problem, "" when it answers."""
        if self._stores is None:
            return {}
        found = {}
        stores = self._stores
        for name, store in (
            ("user_store", stores.users),
            ("item_index", stores.items),
            ("feature_store", stores.features),
            ("scorer", stores.scorer),
        ):
            if store is None:  # this scene does not use it
                continue
            try:
                store.ping(PROBE_SECONDS)
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
            self._tell_age()

    def _tell_age(self) -> None:
        view = self._lists.current() if self._lists is not None else None
        if view is not None:
            now = time.time()
            metrics.FEATURE_AGE.set(now - view.snapshot)
            metrics.FEATURES_STALE.set(self.settings.features.stale(view.snapshot, now))

    def _changed(self, scene: str, release: str, loaded: bool) -> None:
        _count_load(scene, release, loaded)
        if loaded and scene == self.settings.scene:
            self.board.announce(release)

    def _load(self, release: str) -> ReleaseView:
        view = self._preloaded.pop(release, None)
        if not isinstance(view, ReleaseView):
            view = load_view(self.settings, release)
        warm_up(view, self.stores, self.policy)
        return view

    def _load_rows(self, release: str) -> RowView:
        view = self._preloaded.pop(release, None)
        if not isinstance(view, RowView):
            view = load_row_view(self.settings, release)
        if not self.stores.scorer.ready(release, LOAD_SECONDS):
            raise StoreUnavailable(f"the scorer has no model of release {release}; publish it again")
        return view

    def _load_predictions(self, release: str) -> PredictView:
        view = load_predict_view(self.settings, release, self._encoders)
        if not self.stores.scorer.ready(release, LOAD_SECONDS):
            raise StoreUnavailable(f"the scorer has no model of release {release}; publish it again")
        return view


Rows = TypeVar("Rows", RowView, PredictView)


def _current(releases: LiveRelease[Rows], scene: str) -> Rows:
    """The release that rows of a scene are scored by now; NotReady when there is none yet."""
    view = releases.current() or releases.refresh(again=False)
    if view is None:
        raise NotReady(
            f"no release of scene {scene} to score rows with: {releases.reason}; publish one, or run "
            f"`make demo DATASET={scene}`"
        )
    return view


@cache
def _stage(stage: str) -> Histogram:
    return metrics.STAGES.labels(stage)


_announced: dict[str, set[str]] = {}  # by scene


def pointer(users: UserStore, scene: str, timeout: float) -> str | None:
    """The scene's live release; from the pointer's copy on disk while the store is away."""
    try:
        return users.live(scene, timeout)
    except StoreUnavailable:
        copied = users.live_copy(scene)
        if copied is None:
            raise
        return copied


def _count_load(scene: str, release: str, loaded: bool) -> None:
    metrics.RELEASE_LOADS.labels("ok" if loaded else "failed").inc()
    if loaded:
        known = _announced.setdefault(scene, set())
        for other in known - {release}:
            metrics.RELEASE_INFO.labels(other).set(0)
        known.add(release)
        metrics.RELEASE_INFO.labels(release).set(1)


def _count_opening(part: Part) -> None:
    metrics.BREAKER_OPENINGS.labels(part).inc()


def _count_answers(outcome: str, count: int) -> None:
    metrics.ANSWERS_LOGGED.labels(outcome).inc(count)


def runtime() -> Runtime:
    """The runtime of the application that handles the current request."""
    own: Runtime = current_app.extensions[EXTENSION]
    return own
