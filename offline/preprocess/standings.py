"""What events that come after a release are judged against: every item's standing at the snapshot, and each user's newest events.

Serving brings a user's features up to date with these (data_exchange_center/user_updates.py), until the next release has counted
the events itself.
"""

from __future__ import annotations

from dataclasses import replace

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from data_exchange_center.user_measures import LAST_EVENTS, UNIT
from offline.preprocess.item_features import ItemTimeline, item_features
from offline.preprocess.judged_events import popularity_of, standing

_READ = ("item_events", "item_positives", "item_value_sum", "item_global_rate", "item_global_value")


def item_standing(items: ItemTimeline, probes: ir.Table) -> ir.Table:
    """Each item as an event at the moment of the probe would find it.

    Args:
        probes: columns item_id and timestamp, one row per item.

    Returns:
        item_id, rate, value and popularity (int64, in units), global_rate and global_value (float64), ordered by item_id.
    """
    found = item_features(replace(items, wanted=_READ), probes)
    value = (found.item_value_sum * UNIT).round().cast("int64")
    of_item = standing(found.item_positives, value, found.item_events, found.item_global_rate, found.item_global_value)
    return found.select(
        c.ITEM_ID,
        **of_item,
        popularity=popularity_of(found.item_events),
        global_rate=found.item_global_rate,
        global_value=found.item_global_value,
    ).order_by(c.ITEM_ID)


def user_recent(judged: ir.Table) -> ir.Table:
    """What a user's newest events were judged against: as many as features over the last events read, tied ones complete.

    Args:
        judged: see `judged_events`.

    Returns:
        user_id, recent_rates and recent_item_values (array<int64>, in units, oldest event first), ordered by user_id.
    """
    newest_first = ibis.window(group_by=c.USER_ID, order_by=ibis.desc(c.TIMESTAMP))
    ranked = judged.mutate(later=ibis.rank().over(newest_first))  # events with a greater timestamp
    fields = {name: ranked[name] for name in (c.TIMESTAMP, "item_rate", "item_value")}
    events = ranked.filter(ranked.later < max(LAST_EVENTS)).select(c.USER_ID, event=ibis.struct(fields))
    gathered = events.group_by(c.USER_ID).aggregate(events=events.event.collect().sort())
    return gathered.select(
        c.USER_ID,
        recent_rates=gathered.events.map(lambda event: event["item_rate"]),
        recent_item_values=gathered.events.map(lambda event: event["item_value"]),
    ).order_by(c.USER_ID)
