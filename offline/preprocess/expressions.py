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
from offline.preprocess.histories import HISTORY_FIELDS, history_array, history_pairs, with_history
from offline.preprocess.item_states import item_layout, item_states
from offline.preprocess.judged_events import UNIT, hour, log_before_hour, smoothed
from offline.preprocess.timelines import as_of, sum_of_last
from offline.preprocess.user_states import (
    ARRAY_KINDS,
    LAST_EVENTS,
    RECENT_DAYS,
    UserPlan,
    axis_flags,
    plan_of,
    user_states,
)

USER_FEATURES = (
    "user_events",
    "user_positives",
    "user_value_sum",
    "user_value_square_sum",
    "user_residual_sum",
    "user_value_residual_sum",
    "user_popularity_sum",
    "user_popularity_positives",
    *(f"user_{name}_last{k}" for name in ("positives", "values") for k in LAST_EVENTS),
    "user_residual_last20",
    "user_value_residual_last20",
    *(f"user_{name}_{days}d" for name in ("events", "positives") for days in RECENT_DAYS),
    "user_first_timestamp",
    "user_last_timestamp",
    "user_session_start",
    "user_session_events",
    "user_session_positives",
    *(f"user_{axis}_{kind}" for axis in ("term", "decade") for kind in ARRAY_KINDS),
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
    judged: ir.Table,
    items: ir.Table,
    probes: ir.Table,
    *,
    axes: Axes,
    history_length: int,
    busiest: int,
    wanted: Collection[str],
) -> ir.Table:
    """Features of users as of probes.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        probes: columns user_id, timestamp; may repeat.
        axes: what the arrays' elements stand for.
        history_length: most events in the history arrays.
        busiest: at least the most events that one user has; counters are as wide as it needs.
        wanted: names out of USER_FEATURES.

    Returns:
        One row per distinct probe: user_id, timestamp and the wanted features, in that order. Counts and times are int64,
        history_items as the log has them, history_timestamps array<int64>, other arrays array<float32>, everything else float64.
    """
    plan = plan_of(wanted, axes, busiest)
    states = user_states(judged, items, axes, plan).rename(state_user=c.USER_ID, state_timestamp=c.TIMESTAMP)
    found = as_of(judged, probes, c.USER_ID)
    if {"user_global_rate", "user_global_value"} & set(wanted):
        found = _with_log_totals(found, probes, judged)
    found = found.left_join(states, [(c.USER_ID, "state_user"), ("last", "state_timestamp")])
    histories = [name for name in HISTORY_FIELDS if name in wanted]
    if histories:
        pairs = history_pairs(judged, history_length, histories, UNIT)
        seen = plan.layout.read({word: found[f"word{word}"] for word in range(plan.layout.words)}, "n")
        found = with_history(found, pairs, history_length, seen)
    found = _zero_where_unknown(found, states)
    values = _user_values(found, plan)
    values |= _user_arrays(found, plan, axes, wanted)
    values |= {name: history_array(found, name, history_length) for name in histories}
    return found.select(c.USER_ID, c.TIMESTAMP, **{name: values[name] for name in wanted})


def item_features(
    judged: ir.Table,
    items: ir.Table,
    probes: ir.Table,
    *,
    axes: Axes,
    busiest: int,
    wanted: Collection[str],
) -> ir.Table:
    """Features of items as of probes.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        probes: columns item_id, timestamp; may repeat.
        axes: what the arrays' elements stand for.
        busiest: at least the most events that one item has.
        wanted: names out of ITEM_FEATURES.

    Returns:
        One row per distinct probe: item_id, timestamp and the wanted features, in that order. Counts and times are int64, arrays
        array<float32>, everything else float64.
    """
    layout = item_layout(busiest)
    states = item_states(judged, layout).rename(state_item=c.ITEM_ID, state_timestamp=c.TIMESTAMP)
    days = tuple(d for d in RECENT_DAYS if any(name.endswith(f"_{d}d") for name in wanted))
    counted = {"n": ibis.literal(1, "int64"), "label": judged.label}
    words = {f"word{word}": layout.pack(word, counted) for word in layout.words_of(counted)}
    found = as_of(judged, probes, c.ITEM_ID, days=days, measures=words)
    found = _with_log_totals(found, probes, judged)
    found = found.left_join(states, [(c.ITEM_ID, "state_item"), ("last", "state_timestamp")])
    found = _zero_where_unknown(found, states)
    arrays = [name for name in ("item_terms", "item_decade") if name in wanted]
    if arrays:
        found = found.left_join(_item_arrays(items, axes, arrays), [(c.ITEM_ID, "axis_item")])

    def counter(name: str, form: str = "word{}") -> ir.IntegerValue:
        return layout.read({word: found[form.format(word)] for word in layout.words_of([name])}, name)

    count, positives = counter("n"), counter("label")
    values: dict[str, ir.Value] = {
        "item_events": count,
        "item_positives": positives,
        "item_value_sum": found.value / float(UNIT),
        "item_residual_sum": positives - counter("rate") / float(UNIT),
        "item_value_residual_sum": found.value_residual / float(UNIT),
        "item_positives_last20": sum_of_last(
            20,
            counter("label", "last_word{}"),
            counter("n", "last_word{}"),
            counter("label", "oldest_word{}"),
            counter("n", "oldest_word{}"),
        ),
        "item_values_last20": sum_of_last(
            20, found.last_value, counter("n", "last_word{}"), found.oldest_value, counter("n", "oldest_word{}")
        )
        / float(UNIT),
        "item_first_timestamp": found.first_timestamp,
        "item_last_timestamp": found["last"].fill_null(0),
        "item_rate": smoothed(positives, count, found.global_rate),
        "item_global_rate": found.global_rate,
        "item_global_value": found.global_value,
        # against an average item: events so far over items so far, at the log's very beginning 1
        "item_popularity": count
        * ibis.greatest(found.log_items, 1)
        / ibis.greatest(found.log_events, 1).cast("float64"),
    }
    for d in days:
        values[f"item_events_{d}d"] = counter("n", f"word{{}}_{d}d")
        values[f"item_positives_{d}d"] = counter("label", f"word{{}}_{d}d")
    if "item_events_30d" in values:
        average = ibis.greatest(found.log_events_30d, 1) / ibis.greatest(found.log_items, 1).cast("float64")
        values["item_popularity_30d"] = values["item_events_30d"] / average
    values |= {name: found[name] for name in arrays}
    return found.select(c.ITEM_ID, c.TIMESTAMP, **{name: values[name] for name in wanted})


def _user_values(found: ir.Table, plan: UserPlan) -> dict[str, ir.Value]:
    """Every scalar feature that the plan counts, of probes joined with the state after the last event before them."""
    layout = plan.layout
    counted = layout.places

    def counter(name: str, form: str = "word{}") -> ir.IntegerValue:
        return layout.read({word: found[form.format(word)] for word in layout.words_of([name])}, name)

    def of_last(events: int, name: str) -> ir.FloatingValue:
        if name in plan.signed:
            total, oldest = found[f"last{events}_{name}"], found[f"oldest{events}_{name}"]
        else:
            total, oldest = (counter(name, f"{window}{events}_word{{}}") for window in ("last", "oldest"))
        size, oldest_size = (counter("n", f"{window}{events}_word{{}}") for window in ("last", "oldest"))
        return sum_of_last(events, total, size, oldest, oldest_size)

    values: dict[str, ir.Value] = {
        "user_events": counter("n"),
        "user_positives": counter("label"),
        "user_first_timestamp": found.first_timestamp,
        "user_last_timestamp": found["last"].fill_null(0),
    }
    if "global_rate" in found.columns:
        values |= {"user_global_rate": found.global_rate, "user_global_value": found.global_value}
    if "rate" in counted:
        values["user_residual_sum"] = counter("label") - counter("rate") / float(UNIT)
    if "popularity" in counted:
        values["user_popularity_sum"] = counter("popularity") / float(UNIT)
        values["user_popularity_positives"] = counter("popularity_label") / float(UNIT)
    for measure, unit in (("value", UNIT), ("square", UNIT**2), ("value_residual", UNIT)):
        if measure in plan.signed:
            name = {"square": "value_square"}.get(measure, measure)
            values[f"user_{name}_sum"] = found[measure] / float(unit)
    if plan.sessions:
        values["user_session_start"] = found.session_start
        values["user_session_events"] = counter("n") - counter("n", "opened_word{}")
        values["user_session_positives"] = counter("label") - counter("label", "opened_word{}")
    for k in plan.last:
        values[f"user_positives_last{k}"] = of_last(k, "label")
        if "value" in plan.signed:
            values[f"user_values_last{k}"] = of_last(k, "value") / float(UNIT)
        if "rate" in counted:
            values[f"user_residual_last{k}"] = of_last(k, "label") - of_last(k, "rate") / float(UNIT)
        if "value_residual" in plan.signed:
            values[f"user_value_residual_last{k}"] = of_last(k, "value_residual") / float(UNIT)
    for d in plan.days:
        values[f"user_events_{d}d"] = counter("n", f"days{d}_word{{}}")
        values[f"user_positives_{d}d"] = counter("label", f"days{d}_word{{}}")
    return values


def _user_arrays(found: ir.Table, plan: UserPlan, axes: Axes, wanted: Collection[str]) -> dict[str, ir.Value]:
    """The wanted arrays over terms and decades."""
    arrays: dict[str, ir.Value] = {}
    words = {word: found[f"word{word}"] for word in range(plan.layout.words)}
    for axis, used, length in (
        ("term", len(axes.terms), axes.term_length),
        ("decade", DECADES if axes.decades else 0, DECADES),
    ):

        def sums(measure: str, axis: str = axis, used: int = used) -> list[ir.IntegerValue]:
            return [plan.layout.read(words, f"{axis}{place}_{measure}") for place in range(used)]

        if f"user_{axis}_events" in wanted:
            arrays[f"user_{axis}_events"] = _array(sums("n"), length)
        if f"user_{axis}_positives" in wanted:
            arrays[f"user_{axis}_positives"] = _array(sums("label"), length)
        if f"user_{axis}_residual" in wanted:
            pairs = zip(sums("label"), sums("rate"), strict=True)
            arrays[f"user_{axis}_residual"] = _array([label - rate / float(UNIT) for label, rate in pairs], length)
    return arrays


def _zero_where_unknown(found: ir.Table, states: ir.Table) -> ir.Table:
    """Probes that no event precedes found no state: its totals are zeros."""
    totals = [name for name in states.columns if not name.startswith("state_")]
    return found.mutate(**{name: found[name].fill_null(0) for name in totals})


def _with_log_totals(found: ir.Table, probes: ir.Table, judged: ir.Table) -> ir.Table:
    """Adds the log's totals before the hour of each probe."""
    totals = log_before_hour(judged, probes).rename(log_hour=c.TIMESTAMP)
    placed = found.mutate(probe_hour=hour(found[c.TIMESTAMP]))
    return placed.left_join(totals, [("probe_hour", "log_hour")])


def _item_arrays(items: ir.Table, axes: Axes, wanted: Collection[str]) -> ir.Table:
    flags = axis_flags(items, axes)
    arrays = {}
    if "item_terms" in wanted:
        arrays["item_terms"] = _array(flags["term"], axes.term_length)
    if "item_decade" in wanted:
        arrays["item_decade"] = _array(flags["decade"], DECADES)
    return items.select(axis_item=c.ITEM_ID, **arrays)


def _array(elements: Sequence[ir.NumericValue], length: int) -> ir.ArrayValue:
    """Numbers as array<float32>, zeros appended up to `length`."""
    zeros = [ibis.literal(0.0, "float32")] * (length - len(elements))
    return ibis.array([*(element.cast("float32") for element in elements), *zeros])
