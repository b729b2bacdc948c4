"""Who asks: one round trip to the user store, and what follows from it for this request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from data_exchange_center.errors import StoreError
from online.pipeline.context import RequestContext
from online.pipeline.filters import rows_of
from online.pipeline.policy import Clock, Policy
from online.pipeline.query import Query
from online.pipeline.since_release import followed, news, unknown_user
from online.stores.ports import Id, RecentEvent, UserProfile, UserRead, UserStore


@dataclass(frozen=True)
class Visitor:
    """The user of one request.

    Attributes:
        known: the release knows the user.
        profile: of the release, with what the user did since in its history.
        published: the same without; of an unknown user an empty one.
        events: what the user did since, in the order in which it came.
        unwanted: int32 item rows that are never answered: met before, shown lately, excluded by the request, or blocked.
        now: the moment of the request, unix seconds.
    """

    user_id: Id
    known: bool
    profile: UserProfile = field(repr=False)
    published: UserProfile = field(repr=False)
    events: tuple[RecentEvent, ...] = field(repr=False)
    unwanted: np.ndarray = field(repr=False)
    now: int


def read_visitor(context: RequestContext, users: UserStore, policy: Policy, query: Query) -> Visitor:
    """Reads the user; without the user store, from the release on disk and the copy of the blocked items."""
    view, scene = context.view, policy.scene
    try:
        read = context.ask("user_store", lambda timeout: users.read(scene, view.release.id, query.user_id, timeout))
        context.live = read.live
    except StoreError as error:
        context.without("user_store", error)
        read = UserRead(live=None, profile=view.tables.profile(query.user_id), blocked=users.blocked_copy(scene))
    published = read.profile or unknown_user(query.user_id)
    events = news(view, published, read.recent, query.now)
    profile = followed(view, published, events)
    last_event = max(published.last_timestamp, read.last_event)
    now = moment(query.now, last_event, policy.clock, time.time(), view.snapshot)
    others = (read.interacted, query.exclude, read.blocked, shown_lately(read.shown, now, policy.suppress_seconds))
    return Visitor(
        user_id=query.user_id,
        known=read.profile is not None,
        profile=profile,
        published=published,
        events=events,
        unwanted=np.concatenate([profile.history, *(rows_of(view, ids) for ids in others)]).astype(
            np.int32, copy=False
        ),
        now=now,
    )


def shown_lately(shown: Mapping[Id, int], now: int, seconds: float) -> list[Id]:
    """Items that the user was shown `seconds` before `now` or later; none when seconds is 0.

    Args:
        shown: item -> unix seconds at which it was last shown.
    """
    return [item for item, at in shown.items() if at >= now - seconds] if seconds else []


def moment(given: int | None, last_event: int, clock: Clock, wall: float, snapshot: int) -> int:
    """`now` of a request, unix seconds: as given, else by the clock setting.

    `user_last` is just after the user's last known event, and for a user without one the moment of the release's snapshot.
    """
    if given is not None:
        return given
    if clock == "wall":
        return int(wall)
    return last_event + 1 if last_event else snapshot
