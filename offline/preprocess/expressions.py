"""Every point-in-time feature, once, as an ibis expression.

`user_features` and `item_features` answer probes: (entity, timestamp) pairs. A training row is a probe at its own timestamp; the
serving snapshot is one probe per user and item at the snapshot's time. So windows, ties and smoothing cannot differ between them.

A value is made of events with a timestamp strictly smaller than the probe's. Events of one user (or item) that share a
timestamp count together, all or none; nothing depends on the order of rows. Where nothing is known, a value is 0, an array
empty or all zeros.
Times are raw unix seconds: what depends on the moment of a request is computed in the model's graph from its `now`.

Names: `_last20` means the last 20 events, where the cut falls among tied events in proportion; `_7d` the last 7 days, up to the
user's last event (a user's state does not change while nothing happens) or up to an item's probe.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from offline.preprocess.axes import DECADES, Axes
from offline.preprocess.histories import HISTORY_FIELDS, last_events
from offline.preprocess.judged_events import UNIT, hour, log_before_hour, smoothed
from offline.preprocess.timelines import as_of, sum_of_last, through_now
from offline.preprocess.user_states import ARRAY_SUMS, OF_DAYS, OF_LAST, SUMS, axis_flags, user_states

RECENT_DAYS = (1, 7, 30)
NO_AXES = Axes((), 0, False)

_IN_UNITS = {
    "user_value_sum",
    "user_residual_sum",
    "user_value_residual_sum",
    "user_popularity_sum",
    "user_popularity_positives",
}
_ARRAYS = [f"{axis}_{kind}" for axis in ("term", "decade") for kind in ("events", "positives", "residual")]
USER_FEATURES = (
    *SUMS,
    *OF_LAST,
    *OF_DAYS,
    "user_first_timestamp",
    "user_last_timestamp",
    "user_session_start",
    "user_session_events",
    "user_session_positives",
    *(f"user_{name}" for name in _ARRAYS),
    *HISTORY_FIELDS,
    "user_global_rate",
    "user_global_value",
)
ITEM_FEATURES = (
    "item_events",
    "item_positives",
    "item_value_sum",
    "item_residual_sum",
    "item_value_residual_sum",
    "item_positives_last20",
    "item_values_last20",
    *(f"item_{name}_{days}d" for name in ("events", "positives") for days in RECENT_DAYS),
    "item_first_timestamp",
    "item_last_timestamp",
    "item_rate",
    "item_global_rate",
    "item_global_value",
    "item_popularity",
    "item_popularity_30d",
    "item_terms",
    "item_decade",
)


def user_features(
    judged: ir.Table, items: ir.Table, probes: ir.Table, *, axes: Axes, history_length: int, wanted: Collection[str]
) -> ir.Table:
    """Features of users as of probes.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        probes: columns user_id, timestamp; may repeat.
        axes: what the arrays' elements stand for.
        history_length: most events in the history arrays.
        wanted: names out of USER_FEATURES.

    Returns:
        One row per distinct probe: user_id, timestamp and the wanted features, in that order. Counts and times are int64, arrays
        array<float32>, history arrays of their own types, everything else float64.
    """
    with_arrays = any(name.removeprefix("user_") in _ARRAYS for name in wanted)
    with_history = any(name in HISTORY_FIELDS for name in wanted)
    used = axes if with_arrays else NO_AXES
    states = user_states(judged, items, used)
    if with_history:
        states = last_events(states, judged, history_length, "user_events")
    states = states.rename(state_user=c.USER_ID, state_timestamp=c.TIMESTAMP)
    seen = as_of(judged, probes, c.USER_ID)
    if any("_global_" in name for name in wanted):
        seen = _with_log_totals(seen, judged)
    found = seen.left_join(states, [(c.USER_ID, "state_user"), ("last", "state_timestamp")])
    values: dict[str, ir.Value] = {name: found[name].fill_null(0) for name in (*SUMS, *OF_LAST, *OF_DAYS)}
    for name in values:
        if name in _IN_UNITS or (name in OF_LAST and not name.startswith("user_positives")):
            values[name] = values[name] / float(UNIT)
    values["user_value_square_sum"] = values["user_value_square_sum"] / float(UNIT**2)
    values["user_last_timestamp"] = found["last"].fill_null(0)
    for name in ("user_first_timestamp", "user_session_start", "user_session_events", "user_session_positives"):
        values[name] = found[name].fill_null(0)
    if with_arrays:
        values |= _user_arrays(found, used)
    if with_history:
        values |= _history_arrays(found)
    if "global_rate" in found.columns:
        values |= {"user_global_rate": found.global_rate, "user_global_value": found.global_value}
    return found.select(c.USER_ID, c.TIMESTAMP, **{name: values[name] for name in wanted})


def item_features(
    judged: ir.Table, items: ir.Table, probes: ir.Table, *, axes: Axes, wanted: Collection[str]
) -> ir.Table:
    """Features of items as of probes.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        probes: columns item_id, timestamp; may repeat.
        axes: what the arrays' elements stand for.
        wanted: names out of ITEM_FEATURES.

    Returns:
        One row per distinct probe: item_id, timestamp and the wanted features, in that order. Counts and times are int64, arrays
        array<float32>, everything else float64.
    """
    states = _item_states(judged).rename(state_item=c.ITEM_ID, state_timestamp=c.TIMESTAMP)
    events = judged.select(c.ITEM_ID, c.TIMESTAMP, item_events=ibis.literal(1, "int64"), item_positives=judged.label)
    seen = as_of(events, probes, c.ITEM_ID, days=RECENT_DAYS, measures=("item_events", "item_positives"))
    seen = _with_log_totals(seen, judged)
    found = seen.left_join(states, [(c.ITEM_ID, "state_item"), ("last", "state_timestamp")])
    if {"item_terms", "item_decade"} & set(wanted):
        found = found.left_join(_item_arrays(items, axes), [(c.ITEM_ID, "axis_item")])
    count = found.item_events.fill_null(0)
    positives = found.item_positives.fill_null(0)
    # an average item: events so far over items so far; 1 at the log's very beginning
    average = ibis.greatest(found.log_events, 1) / ibis.greatest(found.log_items, 1).cast("float64")
    average_30d = ibis.greatest(found.log_events_30d, 1) / ibis.greatest(found.log_items, 1).cast("float64")
    values: dict[str, ir.Value] = {
        "item_events": count,
        "item_positives": positives,
        **{name: found[name].fill_null(0) / float(UNIT) for name in ("item_value_sum", "item_residual_sum")},
        "item_value_residual_sum": found.item_value_residual_sum.fill_null(0) / float(UNIT),
        "item_positives_last20": found.item_positives_last20.fill_null(0),
        "item_values_last20": found.item_values_last20.fill_null(0) / float(UNIT),
        "item_first_timestamp": found.item_first_timestamp.fill_null(0),
        "item_last_timestamp": found["last"].fill_null(0),
        **{f"item_{m}_{d}d": found[f"item_{m}_{d}d"] for m in ("events", "positives") for d in RECENT_DAYS},
        "item_rate": smoothed(positives, count, found.global_rate),
        "item_global_rate": found.global_rate,
        "item_global_value": found.global_value,
        "item_popularity": count / average,
        "item_popularity_30d": found.item_events_30d / average_30d,
    }
    if "axis_item" in found.columns:
        values |= {name: found[name] for name in ("item_terms", "item_decade")}
    return found.select(c.ITEM_ID, c.TIMESTAMP, **{name: values[name] for name in wanted})


def _item_states(judged: ir.Table) -> ir.Table:
    """Running totals of each item: one row per (item, timestamp) of the log."""
    events = judged.select(
        c.ITEM_ID,
        c.TIMESTAMP,
        "label",
        "value",
        residual=judged.label * UNIT - judged.user_rate,
        value_residual=judged.value - judged.user_value,
    )
    groups = events.group_by(c.ITEM_ID, c.TIMESTAMP).aggregate(
        n=events.count(), **{name: events[name].sum() for name in ("label", "value", "residual", "value_residual")}
    )
    running = through_now(c.ITEM_ID)
    states = groups.mutate(
        item_events=groups.n.sum().over(running),
        item_positives=groups.label.sum().over(running),
        item_value_sum=groups.value.sum().over(running),
        item_residual_sum=groups.residual.sum().over(running),
        item_value_residual_sum=groups.value_residual.sum().over(running),
        item_first_timestamp=groups[c.TIMESTAMP].min().over(running),
    )
    last = {
        name: sum_of_last(states, measure, 20, key=c.ITEM_ID, seen="item_events", size="n")
        for name, measure in (("item_positives_last20", "label"), ("item_values_last20", "value"))
    }
    return states.mutate(**last).drop("n", "label", "value", "residual", "value_residual")


def _with_log_totals(seen: ir.Table, judged: ir.Table) -> ir.Table:
    """Adds the log's totals before the hour of each row."""
    totals = log_before_hour(judged, seen).rename(log_hour=c.TIMESTAMP)
    placed = seen.mutate(seen_hour=hour(seen[c.TIMESTAMP]))
    return placed.left_join(totals, [("seen_hour", "log_hour")]).drop("seen_hour", "log_hour")


def _user_arrays(found: ir.Table, axes: Axes) -> dict[str, ir.ArrayValue]:
    arrays = {}
    for axis, used, length in (
        ("term", len(axes.terms), axes.term_length),
        ("decade", DECADES if axes.decades else 0, DECADES),
    ):
        sums = {kind: packing.unpack(found, f"{axis}_{kind}", used) for kind, packing in ARRAY_SUMS.items()}
        residual = [
            positives - expected / float(UNIT)
            for positives, expected in zip(sums["positives"], sums["expected"], strict=True)
        ]
        arrays[f"user_{axis}_events"] = _array(sums["events"], length)
        arrays[f"user_{axis}_positives"] = _array(sums["positives"], length)
        arrays[f"user_{axis}_residual"] = _array(residual, length)
    return arrays


def _item_arrays(items: ir.Table, axes: Axes) -> ir.Table:
    flags = axis_flags(items, axes)
    return items.select(
        axis_item=c.ITEM_ID,
        item_terms=_array(flags["term"], axes.term_length),
        item_decade=_array(flags["decade"], DECADES),
    )


def _history_arrays(found: ir.Table) -> dict[str, ir.ArrayValue]:
    arrays = {}
    for name, field in HISTORY_FIELDS.items():
        values = found.history.map(lambda event, field=field: event[field])
        if name == "history_values":
            values = values.map(lambda value: value / float(UNIT))
        arrays[name] = ibis.coalesce(values, ibis.literal([], type=values.type()))
    return arrays


def _array(elements: Sequence[ir.NumericValue], length: int) -> ir.ArrayValue:
    """Numbers as array<float32>, zeros appended up to `length`."""
    zeros = [ibis.literal(0.0, "float32")] * (length - len(elements))
    return ibis.array([*(element.cast("float32") for element in elements), *zeros])
