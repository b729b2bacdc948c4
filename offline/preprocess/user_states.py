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
from offline.preprocess.axes import DECADES, FIRST_DECADE, Axes
from offline.preprocess.counters import Layout, layout_of
from offline.preprocess.judged_events import POPULARITY_BITS, RATE_BITS
from offline.preprocess.timelines import last_days, last_events, through_now

SESSION_GAP = 1800  # seconds without an event that end a session
RECENT_DAYS = (1, 7, 30)
LAST_EVENTS = (5, 10, 20)
ARRAY_KINDS = ("events", "positives", "residual")
SIGNED = {"user_value": "value", "user_value_square": "square", "user_value_residual": "value_residual"}


@dataclass(frozen=True)
class UserPlan:
    """What has to be counted for the wanted features.

    Attributes:
        layout: of the packed counters. `n`, `label`, `rate`, `popularity`, `popularity_label`: events, positives, sum of item
            rates, of popularities, of positives' popularities; `<axis><place>_<n|label|rate>`: the same per term and decade.
        signed: measures with a column of their own.
        last: numbers of last events to sum over.
        days: lengths of time windows to sum over.
        sessions: whether session features are wanted.
    """

    layout: Layout
    signed: tuple[str, ...]
    last: tuple[int, ...]
    days: tuple[int, ...]
    sessions: bool

    @property
    def main(self) -> list[int]:
        """Words with the counters that windows sum: events, positives and, when counted, item rates."""
        return self.layout.words_of(name for name in ("n", "label", "rate") if name in self.layout.places)


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
        of_axis = {kind for kind in ARRAY_KINDS if f"user_{axis}_{kind}" in wanted}
        for measure, kinds, extra in (
            ("n", {"events"}, 0),
            ("label", {"positives", "residual"}, 0),
            ("rate", {"residual"}, RATE_BITS),
        ):
            if kinds & of_axis:
                widths += [(f"{axis}{place}_{measure}", bits + extra) for place in range(length)]
    return UserPlan(
        layout_of(widths),
        tuple(m for name, m in SIGNED.items() if any(_is_about(want, name) for want in wanted)),
        tuple(k for k in LAST_EVENTS if any(want.endswith(f"_last{k}") for want in wanted)),
        tuple(d for d in RECENT_DAYS if any(want.endswith(f"_{d}d") for want in wanted)),
        any(want.startswith("user_session_") for want in wanted),
    )


def _is_about(feature: str, measure: str) -> bool:
    """`user_value_sum` and `user_values_last5` are about user_value, and not about user_value_square or _residual."""
    plural = measure.replace("user_value", "user_values") if measure == "user_value" else measure
    return feature == f"{measure}_sum" or feature.startswith((f"{plural}_last",))


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
        One row per (user_id, timestamp) of the log, its events included: first_timestamp; word<w> and <signed> (totals so far);
        session_start and opened_word<w> (totals before the session of the latest event); last<k>_word<w>, last<k>_<signed>
        (sums over the groups that hold the last k events), oldest<k>_... (the same of the first of these groups);
        days<d>_word<w> (sums over the last d days). Words hold the plan's packed counters.
    """
    running = through_now(c.USER_ID)
    groups = _groups(judged, items, axes, plan)
    main = [f"word{word}" for word in plan.main]
    measures = [f"word{word}" for word in range(plan.layout.words)] + list(plan.signed)
    states = groups.mutate(
        previous=groups[c.TIMESTAMP].lag(1).over(ibis.window(group_by=c.USER_ID, order_by=c.TIMESTAMP)),
        first_timestamp=groups[c.TIMESTAMP].first().over(running),
        **{f"all_{name}": groups[name].sum().over(running) for name in measures},
    )
    all_words = {word: states[f"all_word{word}"] for word in range(plan.layout.words)}
    opens = states.previous.isnull() | (states[c.TIMESTAMP] - states.previous > SESSION_GAP)
    nothing = ibis.null("int64")
    states = states.mutate(
        seen=plan.layout.read(all_words, "n"),
        opened=ibis.ifelse(opens, states[c.TIMESTAMP], nothing),
        **{f"before_{name}": ibis.ifelse(opens, states[f"all_{name}"] - states[name], nothing) for name in main},
    )
    columns = {"first_timestamp": states.first_timestamp, **{name: states[f"all_{name}"] for name in measures}}
    if plan.sessions:
        # `seen` orders as the timestamp does; windows of one order are computed in one pass
        so_far = through_now(c.USER_ID, "seen")
        columns["session_start"] = states.opened.max().over(so_far)
        columns |= {f"opened_{name}": states[f"before_{name}"].max().over(so_far) for name in main}
    for events in plan.last:
        window = last_events(c.USER_ID, "seen", events)
        for name in (*main, *plan.signed):
            columns[f"last{events}_{name}"] = states[name].sum().over(window)
            columns[f"oldest{events}_{name}"] = states[name].first().over(window)
    for days in plan.days:
        columns |= {f"days{days}_{name}": states[name].sum().over(last_days(c.USER_ID, days)) for name in main}
    return states.select(c.USER_ID, c.TIMESTAMP, **columns)


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
    weights = {"n": ibis.literal(1, "int64"), "label": events.label, "rate": events.item_rate}
    own = {
        **weights,
        "popularity": events.popularity,
        "popularity_label": events.popularity * events.label,
    }
    own = {name: value for name, value in own.items() if name in layout.places}
    measures: dict[str, ir.IntegerValue] = {}
    for word in range(layout.words):
        parts = [layout.pack(word, own)]
        for measure, weight in weights.items():
            name = f"{measure}_of_word{word}"
            if name in constants:
                parts.append(events[name] if measure == "n" else events[name] * weight)
        total = ibis.literal(0, "int64")
        for part in parts:
            if part is not None:
                total = total + part
        measures[f"word{word}"] = total
    signed = {
        "value": events.value,
        "square": events.value * events.value,
        "value_residual": events.value - events.item_value,
    }
    measures |= {name: signed[name] for name in plan.signed}
    events = events.select(c.USER_ID, c.TIMESTAMP, **measures)
    return events.group_by(c.USER_ID, c.TIMESTAMP).aggregate(**{name: events[name].sum() for name in measures})
