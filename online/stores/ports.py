"""The ports: what the online chain asks of its stores. One adapter per backend; one contract suite per port.

Shared rules. A *release* id is part of every key, so that several releases lie side by side and a request never mixes two.
Every read takes `timeout` in seconds (the rest of the request's budget) and raises `StoreUnavailable` when the store is
gone or too slow, `StoreError` when it answers outside of its contract. Absent things are None or masked, never an exception.
Ids are int or str as the log declares them. Adapters are safe to use from several threads and are created after fork.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from data_exchange_center.release import Release
from online.stores.vocabulary_store import VocabularyStore

if TYPE_CHECKING:
    from online.stores.event_queue import EventQueue

Id = int | str
ANSWERS_KEPT = 50_000
NOTHING = np.empty(0, np.int32)


@dataclass(frozen=True)
class UserProfile:
    """What recall knows of a user in one release.

    Attributes:
        segment: popularity segment; "" is the global one.
        last_timestamp: of the last event known to the release, unix seconds.
        terms, term_weights: preferred terms, best first; weights float32 [T].
        vector: float32 [D], the user's side of the vector channel; empty when the user has none.
        history: int32 [H], item rows of every interaction in the release's known rows, oldest first.
        history_labels: int8 [H]. history_timestamps: int64 [H]. history_values: float32 [H], the rating where the log has
            one, else the label.
        recent_rates, recent_item_values: int32 [R], in units of 1/1024: the smoothed rate and mean value of the items of the newest
            R events just before these, which features over the last events need to be brought up to date (user_updates.py).
    """

    user_id: Id
    segment: str
    last_timestamp: int
    terms: tuple[str, ...]
    term_weights: np.ndarray
    vector: np.ndarray
    history: np.ndarray
    history_labels: np.ndarray
    history_timestamps: np.ndarray
    history_values: np.ndarray
    recent_rates: np.ndarray = field(default_factory=lambda: NOTHING)
    recent_item_values: np.ndarray = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True)
class Event:
    """One thing a user did after the release was made; `event_id` makes it count once."""

    event_id: str
    user_id: Id
    item_id: Id
    event: str  # impression, click, like, dislike, rating
    value: float | None
    timestamp: int
    request_id: str | None = None


@dataclass(frozen=True)
class RecentEvent:
    """An interaction as a row of the log would tell it.

    Attributes:
        timestamp: unix seconds.
        label: 1 for a click, a like, or a rating above the settings' `data.positive_above`, else 0.
        value: the rating, else the label.
    """

    item_id: Id
    timestamp: int
    label: int
    value: float


@dataclass(frozen=True)
class ShownList:
    """Items of one answer, which its user has seen at `timestamp` (unix seconds)."""

    user_id: Id
    timestamp: int
    item_ids: Sequence[Id]


@dataclass(frozen=True)
class UserRead:
    """One round trip's answer.

    Attributes:
        live: the scene's live release as the pointer says at this moment, None when nothing was ever published.
        profile: of the release that was asked for; None when that release does not know the user.
        interacted: ids of items the user interacted with (events other than impressions) since, any release.
        last_event: timestamp of the newest of those events, 0 when none.
        recent: the newest of those events, of the last weeks, in the order in which they came; a release may know some of them.
        shown: item -> unix seconds at which it was last shown, the newest; empty unless `serve.suppress_impressions_hours` is set.
        blocked: ids of items taken out of every answer.
    """

    live: str | None
    profile: UserProfile | None
    interacted: frozenset[Id] = frozenset()
    last_event: int = 0
    recent: tuple[RecentEvent, ...] = ()
    shown: Mapping[Id, int] = field(default_factory=dict)
    blocked: frozenset[Id] = frozenset()


@dataclass(frozen=True)
class Flip:
    """A release became live. `at` in unix seconds."""

    release: str
    at: float


class UserStore(ABC):
    """Users of each release, the release pointer, events, and vocabularies that grow online."""

    @property
    @abstractmethod
    def vocabularies(self) -> VocabularyStore:
        """The vocabularies beside the users; they use the same connections and end with this store."""

    @property
    @abstractmethod
    def events_queue(self) -> EventQueue:
        """The stored events, for those who work them off; uses the same connections."""

    @abstractmethod
    def read(self, scene: str, release: str, user_id: Id, timeout: float) -> UserRead:
        """Pointer, profile, events and blocked items of one user, in one round trip."""

    @abstractmethod
    def write(
        self, scene: str, release: str, profiles: Iterable[UserProfile], *, content: str = "", start: int = 0
    ) -> int:
        """Stores profiles of a release (idempotent, pipelined); returns how many.

        Args:
            content: tells these profiles, in their order, from any others; `written` asks for it.
            start: how many of them are stored already and are not among `profiles`.
        """

    @abstractmethod
    def written(self, scene: str, release: str, content: str) -> int:
        """How many profiles, from the first on, an unfinished write of this content stored; 0 when there is none."""

    @abstractmethod
    def memory(self, scene: str, release: str) -> int:
        """Bytes of the store's memory that a release's profiles take, as the store estimates it."""

    @abstractmethod
    def count(self, scene: str, release: str) -> int:
        """How many profiles a release holds."""

    @abstractmethod
    def drop(self, scene: str, release: str) -> None:
        """Removes a release's profiles; a release that is not there is no error."""

    @abstractmethod
    def live(self, scene: str, timeout: float) -> str | None:
        """The scene's live release."""

    @abstractmethod
    def live_copy(self, scene: str) -> str | None:
        """The pointer's copy on this machine's disk: what was live when the store was last asked. Never asks the store."""

    @abstractmethod
    def history(self, scene: str) -> list[Flip]:
        """Every flip in its order, the live release last; a rollback is a flip too."""

    @abstractmethod
    def releases(self, scene: str) -> list[str]:
        """Releases that hold profiles, sorted by id; a half-written one included."""

    @abstractmethod
    def flip(self, scene: str, release: str, expected: str | None) -> None:
        """Makes `release` live in one atomic step, if `expected` still is, then refreshes the pointer's copy on disk.

        A flip to the release that is live already changes nothing.

        Raises:
            LockHeld: another publisher flipped in between; the message names what is live now.
        """

    @abstractmethod
    def append_events(self, scene: str, events: Sequence[Event], timeout: float) -> int:
        """Stores events durably before it returns (synced to disk, each `event_id` once); returns how many were new.

        Raises:
            StoreUnavailable: nothing is known to be stored; the caller may send all of them again.
        """

    @abstractmethod
    def events(self, scene: str, after: str = "", limit: int = 1000) -> list[tuple[str, Event]]:
        """Stored events in the order in which they came, each with its position; `after` a position goes on from there."""

    @abstractmethod
    def block(self, scene: str, item_ids: Iterable[Id], timeout: float, *, blocked: bool = True) -> int:
        """Takes items out of every answer of the scene, whatever release (or lets them in again); returns how many changed.

        Durable before it returns, and seen by every read that starts afterwards.

        Raises:
            StoreUnavailable: it is not known whether anything changed; asking again does no harm.
        """

    @abstractmethod
    def blocked(self, scene: str, timeout: float) -> frozenset[Id]:
        """The items that are taken out of every answer."""

    @abstractmethod
    def blocked_copy(self, scene: str) -> frozenset[Id]:
        """The same as of when `read`, `live` or `block` was last called by a process of this machine. Never asks the store."""

    @abstractmethod
    def log_answers(self, scene: str, answers: Mapping[str, Mapping[str, Any]], timeout: float) -> None:
        """Keeps answered lists (`user_id`, `release`, `timestamp`, `items`, `scores`; JSON values) by request id.

        Kept for a day, the newest `ANSWERS_KEPT` of a scene at most, and only in the store's memory: unlike events they may be
        lost when it restarts, and reads never wait for a disk because of them.
        """

    @abstractmethod
    def note_shown(self, scene: str, lists: Sequence[ShownList], timeout: float) -> None:
        """Remembers which items users were shown, for `serve.suppress_impressions_hours`; impression events do so by themselves.

        In the store's memory only, as answered lists are. Nothing is noted when that setting is 0.
        """

    @abstractmethod
    def answer(self, scene: str, request_id: str, timeout: float) -> dict[str, Any] | None:
        """What `log_answers` kept."""

    @abstractmethod
    def ping(self, timeout: float) -> None:
        """Raises StoreUnavailable when the store does not answer."""

    @abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True)
class Filters:
    """Conditions that every hit meets: any of the terms, a year range (inclusive)."""

    terms: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None

    @property
    def empty(self) -> bool:
        return not self.terms and self.year_from is None and self.year_to is None


@dataclass(frozen=True)
class VectorQuery:
    """The k items of largest inner product with `vector` (float32 [D]); hits score the inner product."""

    vector: np.ndarray
    k: int
    channel: str = "vector"


@dataclass(frozen=True)
class TermQuery:
    """The k items of largest sum over matched terms of weight x the item's strength in that term (recall_scores.py)."""

    terms: tuple[str, ...]
    weights: np.ndarray
    k: int
    channel: str = "term"


@dataclass(frozen=True)
class Hits:
    """Items of one query, best first, ties by item row. `rows` int32 [n], `scores` float32 [n]."""

    channel: str
    rows: np.ndarray
    scores: np.ndarray


class ItemIndex(ABC):
    """Vector and term recall over the items of each release."""

    @abstractmethod
    def search(
        self,
        release: str,
        queries: Sequence[VectorQuery | TermQuery],
        exclude: np.ndarray,
        filters: Filters,
        timeout: float,
    ) -> list[Hits]:
        """Answers all queries in one round trip, in the order asked.

        Args:
            exclude: int32 item rows that no hit may be; applied inside the search, so that k hits remain.
        """

    @abstractmethod
    def load(self, release: Release) -> int:
        """Builds the index of a release beside the others (idempotent); returns how many items it holds."""

    @abstractmethod
    def count(self, release: str) -> int:
        """How many items a release's index holds; 0 when there is none."""

    @abstractmethod
    def releases(self) -> list[str]:
        """Releases that have an index, sorted by id."""

    @abstractmethod
    def promote(self, release: Release) -> None:
        """Points the stable name that people and other programs use, if the backend has one, at a release; follows the flip."""

    @abstractmethod
    def drop(self, release: str) -> None:
        """Removes a release's index; one that is not there is no error."""

    @abstractmethod
    def ping(self, timeout: float) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True)
class FeatureRows:
    """Raw features, columnar.

    Attributes:
        columns: feature -> array [n] or, for list features, [n, length] padded with the declared default.
        timestamps: int64 [n], as of when each row holds, unix seconds; 0 marks an absent row, whose values are the defaults.
        matrices: dtype -> the names of its features and their columns side by side, [n, width], of which `columns` are views;
            empty where they are not kept so.
    """

    columns: dict[str, np.ndarray] = field(repr=False)
    timestamps: np.ndarray
    matrices: dict[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def present(self) -> np.ndarray:
        return self.timestamps > 0


class FeatureStore(ABC):
    """Raw features of users and items, by release and feature spec."""

    @abstractmethod
    def user(self, release: str, user_id: Id, timeout: float) -> FeatureRows:
        """One user's features (n = 1) in one round trip; an unknown user has an absent row."""

    @abstractmethod
    def items(self, release: str, item_ids: Sequence[Id] | np.ndarray) -> FeatureRows:
        """Features of many items in the order asked, from a snapshot in process that was loaded through the store."""

    @abstractmethod
    def load(self, release: Release) -> dict[str, int]:
        """Registers and materializes a release's features beside the others (idempotent); returns rows per view."""

    @abstractmethod
    def fingerprint(self, release: str) -> str:
        """SHA-256 of the feature spec that the release's features were stored with."""

    @abstractmethod
    def promote(self, release: Release) -> None:
        """Points the stable services of the scene (`ml_user`, `ml_item`) at a release; follows the flip."""

    @abstractmethod
    def releases(self) -> list[str]:
        """Releases of the scene that have features, sorted by id; a half-loaded one included."""

    @abstractmethod
    def drop(self, release: str) -> None:
        """Removes a release's features; one that is not there is no error."""

    @abstractmethod
    def ping(self, timeout: float) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Scorer(ABC):
    """Raw features of N candidates -> outputs, for a given release's model."""

    @abstractmethod
    def score(self, release: str, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        """Runs the release's graph: user and context inputs [1, ...], item and candidate inputs [N, ...].

        Returns:
            output name -> float32 [N], every output of the graph; a chain's has `score`, `like`, `score_logit`, `like_logit`.
        """

    @abstractmethod
    def load(self, release: Release) -> None:
        """Makes a release's model ready beside the others (idempotent, checksum compared, warmed up).

        Raises:
            StoreError: the graph takes or gives something that this kind of release does not.
        """

    @abstractmethod
    def ready(self, release: str, timeout: float) -> bool:
        """Whether this release's model answers; makes it ready in this process when it can."""

    @abstractmethod
    def fingerprint(self, release: str, timeout: float) -> dict[str, str]:
        """`model_sha256` and `feature_spec_sha256` of the model that would score, so that skew fails loudly."""

    @abstractmethod
    def releases(self) -> list[str]:
        """Releases that have a model, sorted by id."""

    @abstractmethod
    def drop(self, release: str) -> None:
        """Retires a release's model; one that is not there is no error."""

    @abstractmethod
    def ping(self, timeout: float) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True)
class Stores:
    """The four ports as the settings chose them."""

    users: UserStore
    items: ItemIndex
    features: FeatureStore
    scorer: Scorer

    def close(self) -> None:
        for store in (self.users, self.items, self.features, self.scorer):
            if store is not None:  # a caller that needs some of them opens only those
                store.close()
