"""Every point-in-time feature, once, as an ibis expression.

`user_features` and `item_features` answer probes: (entity, timestamp) pairs, from a timeline of what is known. A training row
is a probe at its own timestamp; the serving snapshot is one probe per user and item at the snapshot's time. So windows, ties
and smoothing cannot differ between them.

A value is made of events with a timestamp strictly smaller than the probe's. Events of one user (or item) that share a
timestamp count together, all or none; nothing depends on the order of rows. Where nothing is known, a value is 0, an array
empty or all zeros.
Times are raw unix seconds: what depends on the moment of a request is computed in the model's graph from its `now`.

Names: `_last20` means the last 20 events, where the cut falls among tied events in proportion; `_7d` the last 7 days, up to the
user's last event (a user's state does not change while nothing happens) or up to an item's probe.
"""

from __future__ import annotations

from offline.preprocess.item_features import ITEM_FEATURES, ItemTimeline, item_features, item_timeline
from offline.preprocess.judged_events import judged_events
from offline.preprocess.user_features import USER_FEATURES, UserTimeline, user_features, user_timeline

__all__ = [
    "ITEM_FEATURES",
    "USER_FEATURES",
    "ItemTimeline",
    "UserTimeline",
    "item_features",
    "item_timeline",
    "judged_events",
    "user_features",
    "user_timeline",
]
