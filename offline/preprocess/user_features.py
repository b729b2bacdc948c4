"""Features of users as of probes. See expressions.py for what all features have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import ibis.expr.types as ir

from data_exchange_center import columns as c
from data_exchange_center.axes import DECADES, Axes
from data_exchange_center.user_measures import LAST_EVENTS, OF_AXIS, OF_LAST, RECENT_DAYS, TOTALS
from offline.preprocess.answers import array_of, placed_onto, with_log_totals, with_state
from offline.preprocess.histories import HISTORY_FIELDS, history_array, history_pairs, with_history
from offline.preprocess.judged_events import from_units
from offline.preprocess.timelines import as_of
from offline.preprocess.user_states import UserPlan, plan_of, user_states

USER_FEATURES = (
    *TOTALS,
    *(f"user_{name}_last{k}" for name in ("positives", "values") for k in LAST_EVENTS),
    "user_residual_last20",
    "user_value_residual_last20",
    *(f"user_{name}_{days}d" for name in ("events", "positives") for days in RECENT_DAYS),
    "user_first_timestamp",
    "user_last_timestamp",
    "user_session_start",
    "user_session_events",
    "user_session_positives",
    *(f"user_{axis}_{kind}" for axis in ("term", "decade") for kind in OF_AXIS),
    *HISTORY_FIELDS,
    "user_global_rate",
    "user_global_value",
)


@dataclass(frozen=True)
class UserTimeline:
    """Everything that is known about users, to be asked by probes.

    Attributes:
        judged: every known event, see `judged_events`.
        states: see `user_states`.
        pairs: see `history_pairs`; None when no history is wanted.
        plan: what the states count.
        axes: what the arrays' elements stand for.
        history_length: most events in the history arrays.
        wanted: names out of USER_FEATURES.
    """

    judged: ir.Table
    states: ir.Table
    pairs: ir.Table | None
    plan: UserPlan
    axes: Axes
    history_length: int
    wanted: tuple[str, ...]

    def stored(self, store: Callable[[str, ir.Table], ir.Table]) -> UserTimeline:
        """The same, computed once and for all: for a timeline that is asked more than once.

        Args:
            store: makes a table of a name and an expression.
        """
        pairs = None if self.pairs is None else store("user_pairs", self.pairs)
        return replace(self, states=store("user_states", self.states), pairs=pairs)


def user_timeline(
    judged: ir.Table, items: ir.Table, *, axes: Axes, history_length: int, busiest: int, wanted: Sequence[str]
) -> UserTimeline:
    """The timeline of all users.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        axes: what the arrays' elements stand for.
        history_length: most events in the history arrays.
        busiest: at least the most events that one user has; counters are as wide as it needs.
        wanted: names out of USER_FEATURES.
    """
    plan = plan_of(wanted, axes, busiest)
    histories = [name for name in HISTORY_FIELDS if name in wanted]
    pairs = history_pairs(judged, history_length, histories) if histories else None
    states = user_states(judged, items, axes, plan)
    return UserTimeline(judged, states, pairs, plan, axes, history_length, tuple(wanted))


def user_features(timeline: UserTimeline, probes: ir.Table, onto: ir.Table | None = None) -> ir.Table:
    """The wanted features of users as of probes.

    Args:
        timeline: what is known.
        probes: columns user_id, timestamp; may repeat.
        onto: a table with the same probes and any other columns, to which the features are added.

    Returns:
        One row per row of `onto` (per distinct probe without it): its columns (user_id, timestamp) and the wanted features, in that
        order. Counts and times are int64, history_items as the log has them, history_timestamps array<int64>, other arrays
        array<float32>, everything else float64.
    """
    wanted = timeline.wanted
    found = placed_onto(as_of(timeline.judged, probes, c.USER_ID), onto, c.USER_ID)
    if {"user_global_rate", "user_global_value"} & set(wanted):
        found = with_log_totals(found, probes, timeline.judged)
    found = with_state(found, timeline.states, c.USER_ID)
    if timeline.pairs is not None:
        seen = timeline.plan.layout.read(_words(found, timeline.plan), "n")
        found = with_history(found, timeline.pairs, timeline.history_length, seen)
    values = _scalars(found, timeline.plan)
    values |= _arrays(found, timeline.plan, timeline.axes, wanted)
    for name in HISTORY_FIELDS:
        if name in wanted:
            values[name] = history_array(found, name, timeline.history_length)
    kept = [c.USER_ID, c.TIMESTAMP] if onto is None else list(onto.columns)
    return found.select(*kept, **{name: values[name] for name in wanted})


def _words(found: ir.Table, plan: UserPlan) -> dict[int, ir.IntegerValue]:
    return {word: found[f"word{word}"] for word in range(plan.layout.words)}


def _scalars(found: ir.Table, plan: UserPlan) -> dict[str, ir.Value]:
    """Every scalar feature that the plan counts, of probes joined with the state after the last event before them."""
    words, counted = _words(found, plan), plan.layout.places

    def total(name: str) -> ir.IntegerValue:
        return found[name] if name in plan.signed else plan.layout.read(words, name)

    values: dict[str, ir.Value] = {
        name: feature.formula(from_units, *map(total, feature.measures))
        for name, feature in TOTALS.items()
        if all(measure in counted or measure in plan.signed for measure in feature.measures)
    }
    values["user_first_timestamp"] = found.first_timestamp
    values["user_last_timestamp"] = found["last"].fill_null(0)
    if "global_rate" in found.columns:
        values |= {"user_global_rate": found.global_rate, "user_global_value": found.global_value}
    if plan.sessions:
        values |= {f"user_{name}": found[name] for name in ("session_start", "session_events", "session_positives")}
    for k, measures in plan.last:
        for measure in measures:
            of_last = found[f"last{k}_{measure}"]
            values[f"user_{OF_LAST[measure]}_last{k}"] = of_last if measure == "label" else from_units(of_last)
    for d in plan.days:
        values |= {f"user_{name}_{d}d": found[f"days{d}_{name}"] for name in ("events", "positives")}
    return values


def _arrays(found: ir.Table, plan: UserPlan, axes: Axes, wanted: Collection[str]) -> dict[str, ir.Value]:
    """The wanted arrays over terms and decades."""
    arrays: dict[str, ir.Value] = {}
    words = _words(found, plan)
    for axis, used, length in (
        ("term", len(axes.terms), axes.term_length),
        ("decade", DECADES if axes.decades else 0, DECADES),
    ):

        def sums(measure: str, axis: str = axis, used: int = used) -> list[ir.IntegerValue]:
            return [plan.layout.read(words, f"{axis}{place}_{measure}") for place in range(used)]

        for kind, feature in OF_AXIS.items():
            if f"user_{axis}_{kind}" in wanted:
                places = zip(*map(sums, feature.measures), strict=True)
                elements = [feature.formula(from_units, *of_place) for of_place in places]
                arrays[f"user_{axis}_{kind}"] = array_of(elements, length)
    return arrays
