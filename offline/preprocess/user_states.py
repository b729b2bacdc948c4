"""The state of each user after each of their event groups: one row per (user, timestamp) of the log.

Only what the wanted features need is counted. Everything that is never negative is counted in packed words (counters.py); values
and their residuals, which may be negative, have columns of their own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from data_exchange_center.axes import DECADES, FIRST_DECADE, Axes
from data_exchange_center.user_measures import (
    LAST_EVENTS,
    OF_AXIS,
    OF_LAST,
    RECENT_DAYS,
    SESSION_GAP,
    TOTALS,
    measures,
    residual,
)
from offline.preprocess.counters import Layout, layout_of
from offline.preprocess.judged_events import POPULARITY_BITS, RATE_BITS
from offline.preprocess.timelines import first_group, last_days, last_events, sum_of_last, through_now

SIGNED = ("value", "square", "value_residual")  # measures that may be negative


@dataclass(frozen=True)
class UserPlan:
    """What has to be counted for the wanted features.

    Attributes:
        layout: of the packed counters. `n`, `label`, `rate`, `popularity`, `popularity_label`: events, positives, sum of item
            rates, of popularities, of positives' popularities; `<axis><place>_<n|label|rate>`: the same per term and decade.
        signed: measures with a column of their own.
        last: (number of last events, measures to sum over them).
        days: lengths of time windows to sum events and positives over.
        sessions: whether session features are wanted.
    """

    layout: Layout
    signed: tuple[str, ...]
    last: tuple[tuple[int, tuple[str, ...]], ...]
    days: tuple[int, ...]
    sessions: bool


def plan_of(wanted: Collection[str], axes: Axes, busiest: int) -> UserPlan:
    """The plan for some features.

    Args:
        wanted: names of user features.
        axes: what the arrays' elements stand for.
        busiest: the most events that one user has; counters are as wide as it needs.
    """
    bits = max(busiest, 1).bit_length()
    widths = [("n", bits), ("label", bits)]
    if any(name.startswith("user_residual_") for name in wanted):
        widths.append(("rate", bits + RATE_BITS))
    if any(name.startswith("user_popularity_") for name in wanted):
        widths += [("popularity", bits + POPULARITY_BITS), ("popularity_label", bits + POPULARITY_BITS)]
    for axis, length in (("term", len(axes.terms)), ("decade", DECADES if axes.decades else 0)):
        of_axis = {kind for kind in OF_AXIS if f"user_{axis}_{kind}" in wanted}
        for measure, kinds, extra in (
            ("n", {"events"}, 0),
            ("label", {"positives", "residual"}, 0),
            ("rate", {"residual"}, RATE_BITS),
        ):
            if kinds & of_axis:
                widths += [(f"{axis}{place}_{measure}", bits + extra) for place in range(length)]
    last = tuple(
        (k, tuple(measure for measure, name in OF_LAST.items() if f"user_{name}_last{k}" in wanted))
        for k in LAST_EVENTS
    )
    summed = {measure for _, of_last in last for measure in of_last}
    summed |= {measure for name, total in TOTALS.items() if name in wanted for measure in total.measures}
    return UserPlan(
        layout_of(widths),
        tuple(measure for measure in SIGNED if measure in summed),
        tuple((k, measures) for k, measures in last if measures),
        tuple(d for d in RECENT_DAYS if {f"user_events_{d}d", f"user_positives_{d}d"} & set(wanted)),
        any(name.startswith("user_session_") for name in wanted),
    )


def axis_flags(items: ir.Table, axes: Axes) -> dict[str, list[ir.IntegerValue]]:
    """Flags (0 or 1) of an item's terms and of its decade, in the order of the axes."""
    terms = [items[c.TERMS].contains(term).fill_null(False).cast("int64") for term in axes.terms]
    if not axes.decades:
        return {"term": terms, "decade": []}
    year = items[c.YEAR].fill_null(0)
    decade = ibis.greatest(ibis.least(year - year % 10, FIRST_DECADE + 10 * (DECADES - 1)), FIRST_DECADE)
    decades = [((year > 0) & (decade == FIRST_DECADE + 10 * place)).cast("int64") for place in range(DECADES)]
    return {"term": terms, "decade": decades}


def user_states(judged: ir.Table, items: ir.Table, axes: Axes, plan: UserPlan) -> ir.Table:
    """Running totals of each user.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        axes: what the counters of terms and decades stand for.
        plan: what to count.

    Returns:
        One row per (user_id, timestamp) of the log, its events included: first_timestamp; word<w> and <signed> (totals so far,
        words hold the plan's packed counters); session_start, session_events, session_positives (of the session of the latest
        event, so far); last<k>_<measure> (float64, sums over the last k events); days<d>_events, days<d>_positives (of the
        last d days). Values and residuals are in units of 1/1024.
    """
    layout = plan.layout
    words = [f"word{word}" for word in range(layout.words)]
    counted_in = [*words, *plan.signed]
    groups = _groups(judged, items, axes, plan)
    running = through_now(c.USER_ID)
    states = groups.mutate(
        previous=groups[c.TIMESTAMP].lag(1).over(ibis.window(group_by=c.USER_ID, order_by=c.TIMESTAMP)),
        first_timestamp=groups[c.TIMESTAMP].first().over(running),
        **{f"all_{name}": groups[name].sum().over(running) for name in counted_in},
    )
    states = states.mutate(seen=layout.read({w: states[f"all_{word}"] for w, word in enumerate(words)}, "n"))
    main = [words[word] for word in layout.words_of(name for name in ("n", "label", "rate") if name in layout.places)]
    starts: dict[str, ir.Value] = {}
    if plan.sessions:
        opens = states.previous.isnull() | (states[c.TIMESTAMP] - states.previous > SESSION_GAP)
        totals = {"start": states[c.TIMESTAMP], **{name: states[f"all_{name}"] - states[name] for name in main}}
        # all of them only grow, so the largest is that of the latest opening; `seen` orders as the timestamp does, and
        # windows of one order are computed in one pass
        so_far = through_now(c.USER_ID, "seen")
        for name, total in totals.items():
            starts[f"session_{name}"] = ibis.ifelse(opens, total, ibis.null("int64")).max().over(so_far)
    for k, of_last in plan.last:
        needed = [*main, *(name for name in of_last if name in plan.signed)]
        starts[f"last{k}"] = first_group(states, needed).over(last_events(c.USER_ID, "seen", k))
    for days in plan.days:
        starts[f"days{days}"] = first_group(states, main).over(last_days(c.USER_ID, days))
    states = states.mutate(**starts)

    def counted(name: str, form: str = "all_{}", of: ir.Table | ir.StructValue = states) -> ir.IntegerValue:
        return layout.read({w: of[form.format(words[w])] for w in layout.words_of([name])}, name)

    columns: dict[str, ir.Value] = {name: states[f"all_{name}"] for name in counted_in}
    if plan.sessions:
        columns["session_start"] = states.session_start
        columns["session_events"] = counted("n") - counted("n", "session_{}")
        columns["session_positives"] = counted("label") - counted("label", "session_{}")

    def measured(name: str, form: str, of: ir.Table | ir.StructValue = states) -> ir.IntegerValue:
        if name == "residual":
            return residual(counted("label", form, of), counted("rate", form, of))
        return of[form.format(name)] if name in plan.signed else counted(name, form, of)

    for k, of_last in plan.last:
        oldest = states[f"last{k}"]
        size = counted("n") - counted("n", "before_{}", oldest)
        for name in of_last:
            total = measured(name, "all_{}") - measured(name, "before_{}", oldest)
            own = measured(name, "own_{}", oldest)
            columns[f"last{k}_{name}"] = sum_of_last(k, total, size, own, counted("n", "own_{}", oldest))
    for days in plan.days:
        oldest = states[f"days{days}"]
        columns[f"days{days}_events"] = counted("n") - counted("n", "before_{}", oldest)
        columns[f"days{days}_positives"] = counted("label") - counted("label", "before_{}", oldest)
    return states.select(c.USER_ID, c.TIMESTAMP, "first_timestamp", **columns)


def _groups(judged: ir.Table, items: ir.Table, axes: Axes, plan: UserPlan) -> ir.Table:
    """Sums of each (user, timestamp)."""
    layout = plan.layout
    flags = {f"{axis}{place}": flag for axis, of in axis_flags(items, axes).items() for place, flag in enumerate(of)}
    constants = {}  # per item: what one event, one positive and one unit of rate add to each word
    for word in range(layout.words):
        for measure in ("n", "label", "rate"):
            counters = {f"{name}_{measure}": flag for name, flag in flags.items()}
            counters = {name: flag for name, flag in counters.items() if name in layout.places}
            packed = layout.pack(word, counters)
            if packed is not None:
                constants[f"{measure}_of_word{word}"] = packed
    events = judged
    if constants:
        of_items = items.select(axis_item=c.ITEM_ID, **constants)
        events = judged.left_join(of_items, [(c.ITEM_ID, "axis_item")])
    own: dict[str, ir.IntegerValue] = {"n": ibis.literal(1, "int64"), **measures(events)}
    of_place = {name: value for name, value in own.items() if name in layout.places}
    sums: dict[str, ir.IntegerValue] = {}
    for word in range(layout.words):
        parts = [layout.pack(word, of_place)]
        for measure in ("n", "label", "rate"):
            name = f"{measure}_of_word{word}"
            if name in constants:
                parts.append(events[name] if measure == "n" else events[name] * own[measure])
        total = ibis.literal(0, "int64")
        for part in parts:
            if part is not None:
                total = total + part
        sums[f"word{word}"] = total
    sums |= {name: own[name] for name in plan.signed}
    events = events.select(c.USER_ID, c.TIMESTAMP, **sums)
    return events.group_by(c.USER_ID, c.TIMESTAMP).aggregate(**{name: events[name].sum() for name in sums})
