"""The state of each user after each of their event groups: one row per (user, timestamp) of the log."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from offline.preprocess.axes import DECADES, FIRST_DECADE, Axes
from offline.preprocess.counters import COUNTS, RATES, Packing
from offline.preprocess.judged_events import UNIT
from offline.preprocess.timelines import last_days, sum_of_last, through_now

SESSION_GAP = 1800  # seconds without an event that end a session
RECENT_DAYS = (1, 7, 30)
LAST_EVENTS = (5, 10, 20)

# state column -> the measure of one group of events that it sums
SUMS = {
    "user_events": "n",
    "user_positives": "label",
    "user_value_sum": "value",
    "user_value_square_sum": "square",
    "user_residual_sum": "residual",
    "user_value_residual_sum": "value_residual",
    "user_popularity_sum": "popularity",
    "user_popularity_positives": "popularity_positives",
}
OF_LAST = {
    **{f"user_positives_last{k}": ("label", k) for k in LAST_EVENTS},
    **{f"user_values_last{k}": ("value", k) for k in LAST_EVENTS},
    "user_residual_last20": ("residual", 20),
    "user_value_residual_last20": ("value_residual", 20),
}
OF_DAYS = {
    f"user_{name}_{days}d": (measure, days)
    for name, measure in (("events", "n"), ("positives", "label"))
    for days in RECENT_DAYS
}
# what the term and decade arrays sum; residuals are positives minus expected positives
ARRAY_SUMS: dict[str, Packing] = {"events": COUNTS, "positives": COUNTS, "expected": RATES}


def axis_flags(items: ir.Table, axes: Axes) -> dict[str, list[ir.IntegerValue]]:
    """Flags (0 or 1) of an item's terms and of its decade, in the order of the axes."""
    terms = [items[c.TERMS].contains(term).fill_null(False).cast("int64") for term in axes.terms]
    if not axes.decades:
        return {"term": terms, "decade": []}
    year = items[c.YEAR].fill_null(0)
    decade = ibis.greatest(ibis.least(year - year % 10, FIRST_DECADE + 10 * (DECADES - 1)), FIRST_DECADE)
    decades = [((year > 0) & (decade == FIRST_DECADE + 10 * place)).cast("int64") for place in range(DECADES)]
    return {"term": terms, "decade": decades}


def user_states(judged: ir.Table, items: ir.Table, axes: Axes) -> ir.Table:
    """Running totals of each user.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        axes: what the counters of terms and decades stand for.

    Returns:
        One row per (user_id, timestamp) of the log, its events included: the columns of SUMS, OF_LAST and OF_DAYS,
        user_first_timestamp, user_session_start, user_session_events, user_session_positives, and packed counters
        `<axis>_<sum><word>`. Residuals and values are in units of 1/1024.
    """
    running = through_now(c.USER_ID)
    groups = _groups(judged, items, axes)
    packed = [name for name in groups.columns if name.startswith(("term_", "decade_"))]
    states = groups.mutate(
        previous=groups[c.TIMESTAMP].lag(1).over(ibis.window(group_by=c.USER_ID, order_by=c.TIMESTAMP)),
        user_first_timestamp=groups[c.TIMESTAMP].min().over(running),
        **{name: groups[measure].sum().over(running) for name, measure in SUMS.items()},
        **{f"sum_{name}": groups[name].sum().over(running) for name in packed},
    )
    opens = states.previous.isnull() | (states[c.TIMESTAMP] - states.previous > SESSION_GAP)
    states = states.mutate(
        opened=ibis.ifelse(opens, states[c.TIMESTAMP], ibis.null("int64")),
        events_before=ibis.ifelse(opens, states.user_events - states.n, ibis.null("int64")),
        positives_before=ibis.ifelse(opens, states.user_positives - states.label, ibis.null("int64")),
    )
    return states.select(
        c.USER_ID,
        c.TIMESTAMP,
        *SUMS,
        "user_first_timestamp",
        user_session_start=states.opened.max().over(running),
        user_session_events=states.user_events - states.events_before.max().over(running),
        user_session_positives=states.user_positives - states.positives_before.max().over(running),
        **{
            name: sum_of_last(states, measure, events, key=c.USER_ID, seen="user_events", size="n")
            for name, (measure, events) in OF_LAST.items()
        },
        **{name: states[measure].sum().over(last_days(c.USER_ID, days)) for name, (measure, days) in OF_DAYS.items()},
        **{name: states[f"sum_{name}"] for name in packed},
    )


def _groups(judged: ir.Table, items: ir.Table, axes: Axes) -> ir.Table:
    """Sums of each (user, timestamp)."""
    flags = axis_flags(items, axes)
    item_counters = items.select(
        axis_item=c.ITEM_ID,
        **{
            name: column
            for axis, of_axis in flags.items()
            for packing, kind in ((COUNTS, "count"), (RATES, "rate"))
            for name, column in packing.pack(of_axis, f"{axis}_{kind}").items()
        },
    )
    events = judged.left_join(item_counters, [(c.ITEM_ID, "axis_item")])
    measures = {
        "n": ibis.literal(1, "int64"),
        "label": events.label,
        "value": events.value,
        "square": events.value * events.value,
        "residual": events.label * UNIT - events.item_rate,
        "value_residual": events.value - events.item_value,
        "popularity": events.popularity,
        "popularity_positives": events.popularity * events.label,
    }
    for axis, of_axis in flags.items():
        for word in range(COUNTS.words(len(of_axis))):
            measures[f"{axis}_events{word}"] = events[f"{axis}_count{word}"]
            measures[f"{axis}_positives{word}"] = events[f"{axis}_count{word}"] * events.label
        for word in range(RATES.words(len(of_axis))):
            measures[f"{axis}_expected{word}"] = events[f"{axis}_rate{word}"] * events.item_rate
    events = events.select(c.USER_ID, c.TIMESTAMP, **measures)
    return events.group_by(c.USER_ID, c.TIMESTAMP).aggregate(**{name: events[name].sum() for name in measures})
