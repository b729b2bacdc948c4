"""The state of each item after each of its event groups: one row per (item, timestamp) of the log."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from offline.preprocess.counters import Layout, layout_of
from offline.preprocess.judged_events import RATE_BITS
from offline.preprocess.timelines import last_events, through_now

LAST_EVENTS = 20


def item_layout(busiest: int) -> Layout:
    """Counters of an item: events, positives and the sum of its raters' rates.

    Args:
        busiest: the most events that one item has.
    """
    bits = max(busiest, 1).bit_length()
    return layout_of([("n", bits), ("label", bits), ("rate", bits + RATE_BITS)])


def item_states(judged: ir.Table, layout: Layout) -> ir.Table:
    """Running totals of each item.

    Args:
        judged: every known event, see `judged_events`.
        layout: of the packed counters.

    Returns:
        One row per (item_id, timestamp) of the log, its events included: first_timestamp; word<w>, value, value_residual
        (totals so far, the latter two in units); last_word<w>, last_value (sums over the groups that hold the last 20
        events), oldest_word<w>, oldest_value (the same of the first of these groups).
    """
    counted = {"n": ibis.literal(1, "int64"), "label": judged.label, "rate": judged.user_rate}
    words = [f"word{word}" for word in range(layout.words)]
    events = judged.select(
        c.ITEM_ID,
        c.TIMESTAMP,
        "value",
        value_residual=judged.value - judged.user_value,
        **{f"word{word}": layout.pack(word, counted) for word in range(layout.words)},
    )
    measures = [*words, "value", "value_residual"]
    groups = events.group_by(c.ITEM_ID, c.TIMESTAMP).aggregate(**{name: events[name].sum() for name in measures})
    running = through_now(c.ITEM_ID)
    states = groups.mutate(
        first_timestamp=groups[c.TIMESTAMP].first().over(running),
        **{f"all_{name}": groups[name].sum().over(running) for name in measures},
    )
    states = states.mutate(seen=layout.read({w: states[f"all_word{w}"] for w in range(layout.words)}, "n"))
    window = last_events(c.ITEM_ID, "seen", LAST_EVENTS)
    return states.select(
        c.ITEM_ID,
        c.TIMESTAMP,
        "first_timestamp",
        **{name: states[f"all_{name}"] for name in measures},
        **{f"last_{name}": states[name].sum().over(window) for name in (*words, "value")},
        **{f"oldest_{name}": states[name].first().over(window) for name in (*words, "value")},
    )
