"""What a user did since the release was made, and what follows from it at once.

That is the history that recall reads, and the features that the ranker reads (data_exchange_center/user_updates.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data_exchange_center.user_updates import known_events, updated
from online.pipeline.release_view import ID_DTYPES, ReleaseView
from online.stores.ports import FeatureRows, Id, RecentEvent, UserProfile
from online.stores.stored_features import StoredFeature, stored_features


def news(
    view: ReleaseView, profile: UserProfile, events: Sequence[RecentEvent], until: int | None
) -> tuple[RecentEvent, ...]:
    """The events that the release does not know, in the order in which they came.

    Args:
        profile: of the release.
        until: the moment for which a list was asked for, unix seconds: later events are left out; None: none is.
    """
    if not events:
        return ()
    history, times = profile.history, profile.history_timestamps

    def is_known(event: RecentEvent) -> bool:
        row = view.item_rows.get(event.item_id)
        return row is not None and bool(((history == row) & (times == event.timestamp)).any())

    return tuple(event for event in events if (until is None or event.timestamp <= until) and not is_known(event))


def followed(view: ReleaseView, profile: UserProfile, events: Sequence[RecentEvent]) -> UserProfile:
    """The profile with these events in its history, by timestamp; what the release made of the history stays as it is."""
    known = [event for event in events if event.item_id in view.item_rows]
    if not known:
        return profile
    times = np.concatenate([profile.history_timestamps, [event.timestamp for event in known]]).astype(np.int64)
    order = np.argsort(times, kind="stable")

    def both(old: np.ndarray, new: list[Any]) -> np.ndarray:
        joined: np.ndarray = np.concatenate([old, np.array(new, old.dtype)])[order]
        return joined

    return replace(
        profile,
        history=both(profile.history, [view.item_rows[event.item_id] for event in known]),
        history_labels=both(profile.history_labels, [event.label for event in known]),
        history_values=both(profile.history_values, [event.value for event in known]),
        history_timestamps=times[order],
    )


def up_to_date(
    view: ReleaseView, features: FeatureRows, profile: UserProfile, events: Sequence[RecentEvent]
) -> FeatureRows:
    """A user's features with these events counted; as they are when there is none, or the release lacks what is needed.

    Args:
        features: the user's row in the release (n = 1); defaults for somebody unknown.
        profile: of the release, without the events.
    """
    if not events or view.standing is None:
        return features
    ids: Any = ID_DTYPES[view.item_type]
    known = known_events(
        view.item_ids[profile.history],
        profile.history_timestamps,
        profile.history_labels,
        profile.history_values,
        profile.recent_rates,
        profile.recent_item_values,
    )
    rows = np.array([view.item_rows.get(event.item_id, -1) for event in events])
    new = view.standing.judged(
        np.array([event.item_id for event in events], ids),
        rows,
        np.array([event.timestamp for event in events]),
        np.array([event.label for event in events]),
        np.array([event.value for event in events], np.float32),
    )
    base = {name: column[0] for name, column in features.columns.items()}
    found = updated(base, base, known, new, rows, view.standing)
    columns = dict(features.columns)
    for feature in _stored(view, found):
        columns[feature.name] = _column(feature, found[feature.name])
    return FeatureRows(columns, features.timestamps)


def _stored(view: ReleaseView, names: dict[str, Any]) -> list[StoredFeature]:
    wanted = [feature for feature in view.spec.user_features if feature.name in names]
    return stored_features(wanted, {"history_items": view.item_type})


def _column(feature: StoredFeature, value: Any) -> np.ndarray:
    """[1] or [1, length], padded with the default as stored rows are."""
    column = feature.defaults(1)
    if feature.length:
        kept = value[: feature.length]
        column[0, : len(kept)] = kept
    else:
        column[0] = value
    return column


def unknown_user(user_id: Id) -> UserProfile:
    """The profile of a user whom the release does not know: the global segment and nothing else."""
    return UserProfile(
        user_id=user_id,
        segment="",
        last_timestamp=0,
        terms=(),
        term_weights=np.empty(0, np.float32),
        vector=np.empty(0, np.float32),
        history=np.empty(0, np.int32),
        history_labels=np.empty(0, np.int8),
        history_values=np.empty(0, np.float32),
        history_timestamps=np.empty(0, np.int64),
    )
