"""Features of items as of probes. See expressions.py for what all features have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from data_exchange_center.axes import DECADES, Axes
from data_exchange_center.user_measures import RECENT_DAYS, smoothed
from offline.preprocess.answers import array_of, placed_onto, with_log_totals, with_state
from offline.preprocess.counters import Layout
from offline.preprocess.item_states import item_layout, item_states
from offline.preprocess.judged_events import from_units
from offline.preprocess.timelines import as_of
from offline.preprocess.user_states import axis_flags

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


@dataclass(frozen=True)
class ItemTimeline:
    """Everything that is known about items, to be asked by probes.

    Attributes:
        judged: every known event, see `judged_events`.
        items: the items table.
        states: see `item_states`.
        layout: of the states' counters.
        axes: what the arrays' elements stand for.
        days: lengths of the time windows that are wanted.
        wanted: names out of ITEM_FEATURES.
    """

    judged: ir.Table
    items: ir.Table
    states: ir.Table
    layout: Layout
    axes: Axes
    days: tuple[int, ...]
    wanted: tuple[str, ...]

    def stored(self, store: Callable[[str, ir.Table], ir.Table]) -> ItemTimeline:
        """The same, computed once and for all; see `UserTimeline.stored`."""
        return replace(self, states=store("item_states", self.states))


def item_timeline(
    judged: ir.Table, items: ir.Table, *, axes: Axes, busiest: int, wanted: Sequence[str]
) -> ItemTimeline:
    """The timeline of all items.

    Args:
        judged: every known event, see `judged_events`.
        items: the items table.
        axes: what the arrays' elements stand for.
        busiest: at least the most events that one item has.
        wanted: names out of ITEM_FEATURES.
    """
    layout = item_layout(busiest)
    days = tuple(d for d in RECENT_DAYS if any(name.endswith(f"_{d}d") for name in wanted))
    return ItemTimeline(judged, items, item_states(judged, layout), layout, axes, days, tuple(wanted))


def item_features(timeline: ItemTimeline, probes: ir.Table, onto: ir.Table | None = None) -> ir.Table:
    """The wanted features of items as of probes.

    Args:
        timeline: what is known.
        probes: columns item_id, timestamp; may repeat.
        onto: a table with the same probes and any other columns, to which the features are added.

    Returns:
        One row per row of `onto` (per distinct probe without it): its columns (item_id, timestamp) and the wanted features, in that
        order. Counts and times are int64, arrays array<float32>, everything else float64.
    """
    judged, layout, wanted = timeline.judged, timeline.layout, timeline.wanted
    counted = {"n": ibis.literal(1, "int64"), "label": judged.label}
    words = {f"word{word}": layout.pack(word, counted) for word in layout.words_of(counted)}
    seen = as_of(judged, probes, c.ITEM_ID, days=timeline.days, measures=words)
    found = with_log_totals(placed_onto(seen, onto, c.ITEM_ID), probes, judged)
    found = with_state(found, timeline.states, c.ITEM_ID)
    arrays = [name for name in ("item_terms", "item_decade") if name in wanted]
    if arrays:
        of_items = _item_arrays(timeline.items, timeline.axes, arrays)
        found = found.left_join(of_items, [(c.ITEM_ID, "axis_item")])

    def counter(name: str, form: str = "word{}") -> ir.IntegerValue:
        return layout.read({word: found[form.format(word)] for word in layout.words_of([name])}, name)

    count, positives = counter("n"), counter("label")
    values: dict[str, ir.Value] = {
        "item_events": count,
        "item_positives": positives,
        "item_value_sum": from_units(found.value),
        "item_residual_sum": positives - from_units(counter("rate")),
        "item_value_residual_sum": from_units(found.value_residual),
        "item_positives_last20": found.last_positives,
        "item_values_last20": from_units(found.last_values),
        "item_first_timestamp": found.first_timestamp,
        "item_last_timestamp": found["last"].fill_null(0),
        "item_rate": smoothed(positives, count.cast("float64"), found.global_rate),
        "item_global_rate": found.global_rate,
        "item_global_value": found.global_value,
        # against an average item: events so far over items so far, at the log's very beginning 1
        "item_popularity": count
        * ibis.greatest(found.log_items, 1)
        / ibis.greatest(found.log_events, 1).cast("float64"),
    }
    for d in timeline.days:
        values[f"item_events_{d}d"] = counter("n", f"word{{}}_{d}d")
        values[f"item_positives_{d}d"] = counter("label", f"word{{}}_{d}d")
    if "item_events_30d" in values:
        average = ibis.greatest(found.log_events_30d, 1) / ibis.greatest(found.log_items, 1).cast("float64")
        values["item_popularity_30d"] = values["item_events_30d"] / average
    values |= {name: found[name] for name in arrays}
    kept = [c.ITEM_ID, c.TIMESTAMP] if onto is None else list(onto.columns)
    return found.select(*kept, **{name: values[name] for name in wanted})


def _item_arrays(items: ir.Table, axes: Axes, wanted: Collection[str]) -> ir.Table:
    flags = axis_flags(items, axes)
    arrays = {}
    if "item_terms" in wanted:
        arrays["item_terms"] = array_of(flags["term"], axes.term_length)
    if "item_decade" in wanted:
        arrays["item_decade"] = array_of(flags["decade"], DECADES)
    return items.select(axis_item=c.ITEM_ID, **arrays)
