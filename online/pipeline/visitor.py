"""Who asks: one round trip to the user store, and what follows from it for this request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from data_exchange_center.errors import StoreError
from online.pipeline.context import RequestContext
from online.pipeline.filters import rows_of
from online.pipeline.query import Query
from online.stores.ports import Id, UserProfile, UserRead, UserStore

Clock = Literal["wall", "user_last"]


@dataclass(frozen=True)
class Visitor:
    """The user of one request.

    Attributes:
        known: the release knows the user.
        profile: of the release; for an unknown user, what the events since then tell.
        unwanted: int32 item rows that are never answered: met before, excluded by the request, or blocked.
        last_event: unix seconds of the newest known event, 0 when there is none.
    """

    user_id: Id
    known: bool
    profile: UserProfile = field(repr=False)
    unwanted: np.ndarray = field(repr=False)
    last_event: int


def read_visitor(context: RequestContext, users: UserStore, scene: str, query: Query) -> Visitor:
    """Reads the user; without the user store, from the release on disk and the copy of the blocked items."""
    view = context.view
    try:
        read = context.ask("user_store", lambda timeout: users.read(scene, view.release.id, query.user_id, timeout))
        context.live = read.live
    except StoreError as error:
        context.without("user_store", error)
        read = UserRead(live=None, profile=view.tables.profile(query.user_id), blocked=users.blocked_copy(scene))
    since = rows_of(view, read.interacted)
    profile = read.profile or newcomer(query.user_id, rows_of(view, read.liked))
    unwanted = [profile.history, since, rows_of(view, query.exclude), rows_of(view, read.blocked)]
    return Visitor(
        user_id=query.user_id,
        known=read.profile is not None,
        profile=profile,
        unwanted=np.concatenate(unwanted).astype(np.int32, copy=False),
        last_event=max(profile.last_timestamp, read.last_event),
    )


def newcomer(user_id: Id, liked: np.ndarray) -> UserProfile:
    """The profile of a user whom the release does not know: the global segment, and as history the items liked since.

    Args:
        liked: int32 item rows, newest first.
    """
    return UserProfile(
        user_id=user_id,
        segment="",
        last_timestamp=0,
        terms=(),
        term_weights=np.empty(0, np.float32),
        vector=np.empty(0, np.float32),
        history=liked[::-1].copy(),
        history_labels=np.ones(len(liked), np.int8),
        history_values=np.ones(len(liked), np.float32),
        history_timestamps=np.zeros(len(liked), np.int64),
    )


def moment(query: Query, visitor: Visitor, clock: Clock, wall: float, snapshot: int) -> int:
    """`now` of a request, unix seconds: as given, else by the clock setting.

    `user_last` is just after the user's last known event, and for a user without one the moment of the release's snapshot.
    """
    if query.now is not None:
        return query.now
    if clock == "wall":
        return int(wall)
    return visitor.last_event + 1 if visitor.last_event else snapshot
