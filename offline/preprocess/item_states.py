"""The state of each item after each of its event groups: one row per (item, timestamp) of the log."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from offline.preprocess.counters import Layout, layout_of
from offline.preprocess.judged_events import RATE_BITS
from offline.preprocess.timelines import first_group, last_events, sum_of_last, through_now

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
        One row per (item_id, timestamp) of the log, its events included: first_timestamp; word<w> (packed totals so far), value,
        value_residual (totals so far, in units); last_positives, last_values (float64, over the last 20 events, the latter in
        units).
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
    oldest = first_group(states, [*words, "value"]).over(last_events(c.ITEM_ID, "seen", LAST_EVENTS))
    states = states.mutate(oldest=oldest)

    def counter(name: str, form: str, of: ir.Table | ir.StructValue = states) -> ir.IntegerValue:
        return layout.read({w: of[form.format(word)] for w, word in enumerate(words)}, name)

    def since(name: str) -> ir.IntegerValue:
        return counter(name, "all_{}") - counter(name, "before_{}", states.oldest)

    own = counter("n", "own_{}", states.oldest)
    values = states.all_value - states.oldest["before_value"]
    return states.select(
        c.ITEM_ID,
        c.TIMESTAMP,
        "first_timestamp",
        **{name: states[f"all_{name}"] for name in measures},
        last_positives=sum_of_last(
            LAST_EVENTS, since("label"), since("n"), counter("label", "own_{}", states.oldest), own
        ),
        last_values=sum_of_last(LAST_EVENTS, values, since("n"), states.oldest["own_value"], own),
    )
