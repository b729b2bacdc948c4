"""What one event adds to its user, and what user features are made of: defined once, for engines of any kind.

Offline, ibis columns go through these expressions and windows sum them over a whole log (offline/preprocess); online, NumPy arrays
of one user's events do (user_updates.py). Rates and values are kept in units of 1/1024, as int64: sums of integers are exact in
any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

UNIT = 1024
PRIOR_EVENTS = 5  # that a prior mean counts for
NEUTRAL_RATE = 0.5  # before the first event of the log
SESSION_GAP = 1800  # seconds without an event that end a session
RECENT_DAYS = (1, 7, 30)
LAST_EVENTS = (5, 10, 20)
SECONDS_PER_DAY = 86_400

# what stands for a column of the engine: an ibis value or a NumPy array
Column = Any


def measures(event: Any) -> dict[str, Column]:
    """What an event adds to its user's totals.

    Args:
        event: has `label` (0 or 1), and in units `value` (the rating, else the label), and of its item just before it `item_rate`,
            `item_value` and `popularity` (ln(1 + events)); int64 columns or arrays.
    """
    return {
        "label": event.label,
        "rate": event.item_rate,
        "popularity": event.popularity,
        "popularity_label": event.popularity * event.label,
        "value": event.value,
        "square": event.value * event.value,
        "value_residual": event.value - event.item_value,
        "residual": residual(event.label, event.item_rate),
    }


def residual(label: Column, rate: Column) -> Column:
    """How much more positives there are than their items' rates promised, in units."""
    return label * UNIT - rate


def smoothed(total: Column, events: Column, prior: Column) -> Column:
    """Mean of a measure with the prior mean counted as PRIOR_EVENTS events; float64 where total or prior are."""
    return (total + prior * PRIOR_EVENTS) / (events + PRIOR_EVENTS)


@dataclass(frozen=True)
class Total:
    """A feature made of sums over all of a user's events.

    Attributes:
        measures: keys of `measures`, and `n`, the number of events.
        formula: (from_units, *sums) -> the feature.
    """

    measures: tuple[str, ...]
    formula: Callable[..., Column]


_EVENTS = Total(("n",), lambda exact, n: n)
_POSITIVES = Total(("label",), lambda exact, label: label)
_RESIDUAL = Total(("label", "rate"), lambda exact, label, rate: label - exact(rate))
TOTALS: Mapping[str, Total] = {
    "user_events": _EVENTS,
    "user_positives": _POSITIVES,
    "user_value_sum": Total(("value",), lambda exact, value: exact(value)),
    "user_value_square_sum": Total(("square",), lambda exact, square: exact(exact(square))),
    "user_residual_sum": _RESIDUAL,
    "user_value_residual_sum": Total(("value_residual",), lambda exact, residual: exact(residual)),
    "user_popularity_sum": Total(("popularity",), lambda exact, popularity: exact(popularity)),
    "user_popularity_positives": Total(("popularity_label",), lambda exact, popularity: exact(popularity)),
}
# elements of user_<axis>_<kind>: the same over the events whose item has that term or is of that decade
OF_AXIS: Mapping[str, Total] = {"events": _EVENTS, "positives": _POSITIVES, "residual": _RESIDUAL}
# measures -> the features user_<name>_last<k>; all but the positives are in units
OF_LAST: Mapping[str, str] = {
    "label": "positives",
    "value": "values",
    "residual": "residual",
    "value_residual": "value_residual",
}
