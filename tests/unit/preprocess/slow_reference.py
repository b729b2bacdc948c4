"""Point-in-time features by plain loops over all events: slow, and short enough to be checked by eye."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

DAY = 86_400
TERMS_OF_ITEM = dict[Any, list[str]]


@dataclass(frozen=True)
class Event:
    user: Any
    item: Any
    timestamp: int
    label: int
    rating: float | None

    @property
    def value(self) -> float:
        return self.label if self.rating is None else self.rating


@dataclass(frozen=True)
class Catalog:
    terms: dict[Any, list[str]]
    years: dict[Any, int]
    axis: list[str]
    term_length: int


def in_units(number: float) -> int:
    return math.floor(number * 1024 + 0.5)


def log_before_hour(events: list[Event], t: int) -> tuple[float, float, int, int, int]:
    """Rate, mean value, events, events in 30 days and items of the log before the hour of t."""
    start = t - t % 3600
    known = [e for e in events if e.timestamp - e.timestamp % 3600 < start]
    recent = [e for e in known if e.timestamp - e.timestamp % 3600 >= start - 30 * DAY]
    rate = sum(e.label for e in known) / len(known) if known else 0.5
    value = sum(in_units(e.value) for e in known) / len(known) / 1024 if known else 0.0
    return rate, value, len(known), len(recent), len({e.item for e in known})


def smoothed(total: float, count: int, prior: float) -> float:
    return (total + prior * 5) / (count + 5)


def known_then(events: list[Event], of: Event, *, entity: str) -> tuple[int, int, int]:
    """(rate in units, mean value in units, events) of the event's item or user strictly before it."""
    earlier = [e for e in events if getattr(e, entity) == getattr(of, entity) and e.timestamp < of.timestamp]
    rate, value, *_ = log_before_hour(events, of.timestamp)
    mean = smoothed(sum(in_units(e.value) for e in earlier), len(earlier), value * 1024)
    return in_units(smoothed(sum(e.label for e in earlier), len(earlier), rate)), math.floor(mean + 0.5), len(earlier)


def sum_of_last(measured: list[tuple[int, float]], count: int) -> float:
    """Sum over the last events, newest group first; the group that the cut divides gives its proportionate share."""
    total, room = 0.0, count
    for t in sorted({t for t, _ in measured}, reverse=True):
        group = [m for at, m in measured if at == t]
        if room <= 0:
            break
        total += sum(group) * min(1.0, room / len(group))
        room -= len(group)
    return total


def decade_of(year: int) -> int | None:
    return None if year <= 0 else min(max((year - 1920) // 10, 0), 8)


def user_reference(events: list[Event], catalog: Catalog, user: Any, t: int, history_length: int) -> dict[str, Any]:
    """Every user feature of one user as of t."""
    before = [e for e in events if e.user == user and e.timestamp < t]
    item_then = {e: known_then(events, e, entity="item") for e in before}
    rate, value, *_ = log_before_hour(events, t)

    def residual(e: Event) -> float:
        return e.label - item_then[e][0] / 1024

    def value_residual(e: Event) -> float:
        return (in_units(e.value) - item_then[e][1]) / 1024

    def popularity(e: Event) -> float:
        return in_units(math.log(1 + item_then[e][2])) / 1024

    def last(measure: Any, count: int) -> float:
        return sum_of_last([(e.timestamp, measure(e)) for e in before], count)

    end = max((e.timestamp for e in before), default=0)
    times = sorted({e.timestamp for e in before})
    session = times[-1:]
    for earlier in reversed(times[:-1]):
        if session[0] - earlier > 1800:
            break
        session.insert(0, earlier)
    in_session = [e for e in before if e.timestamp in session]
    newest = sorted(before, key=lambda e: (e.timestamp, e.item, e.label, e.value), reverse=True)[:history_length]
    made: dict[str, Any] = {
        "user_events": len(before),
        "user_positives": sum(e.label for e in before),
        "user_value_sum": sum(e.value for e in before),
        "user_value_square_sum": sum(e.value**2 for e in before),
        "user_residual_sum": sum(residual(e) for e in before),
        "user_value_residual_sum": sum(value_residual(e) for e in before),
        "user_popularity_sum": sum(popularity(e) for e in before),
        "user_popularity_positives": sum(popularity(e) * e.label for e in before),
        "user_residual_last20": last(residual, 20),
        "user_value_residual_last20": last(value_residual, 20),
        "user_first_timestamp": min((e.timestamp for e in before), default=0),
        "user_last_timestamp": end,
        "user_session_start": session[0] if session else 0,
        "user_session_events": len(in_session),
        "user_session_positives": sum(e.label for e in in_session),
        "history_items": [e.item for e in newest],
        "history_labels": [e.label for e in newest],
        "history_values": [e.value for e in newest],
        "history_timestamps": [e.timestamp for e in newest],
        "user_global_rate": rate,
        "user_global_value": value,
    }
    for k in (5, 10, 20):
        made[f"user_positives_last{k}"] = last(lambda e: e.label, k)
        made[f"user_values_last{k}"] = last(lambda e: e.value, k)
    for d in (1, 7, 30):
        recent = [e for e in before if e.timestamp >= end - d * DAY]
        made[f"user_events_{d}d"] = len(recent)
        made[f"user_positives_{d}d"] = sum(e.label for e in recent)
    of_term = [[e for e in before if term in catalog.terms[e.item]] for term in catalog.axis]
    of_term += [[]] * (catalog.term_length - len(of_term))
    of_decade = [[e for e in before if decade_of(catalog.years[e.item]) == place] for place in range(9)]
    for axis, parts in (("term", of_term), ("decade", of_decade)):
        made[f"user_{axis}_events"] = [len(part) for part in parts]
        made[f"user_{axis}_positives"] = [sum(e.label for e in part) for part in parts]
        made[f"user_{axis}_residual"] = [sum(residual(e) for e in part) for part in parts]
    return made


def item_reference(events: list[Event], catalog: Catalog, item: Any, t: int) -> dict[str, Any]:
    """Every item feature of one item as of t."""
    before = [e for e in events if e.item == item and e.timestamp < t]
    rate, value, log_events, log_events_30d, log_items = log_before_hour(events, t)
    user_then = {e: known_then(events, e, entity="user") for e in before}
    positives = sum(e.label for e in before)
    made: dict[str, Any] = {
        "item_events": len(before),
        "item_positives": positives,
        "item_value_sum": sum(e.value for e in before),
        "item_residual_sum": sum(e.label - user_then[e][0] / 1024 for e in before),
        "item_value_residual_sum": sum((in_units(e.value) - user_then[e][1]) / 1024 for e in before),
        "item_positives_last20": sum_of_last([(e.timestamp, e.label) for e in before], 20),
        "item_values_last20": sum_of_last([(e.timestamp, e.value) for e in before], 20),
        "item_first_timestamp": min((e.timestamp for e in before), default=0),
        "item_last_timestamp": max((e.timestamp for e in before), default=0),
        "item_rate": smoothed(positives, len(before), rate),
        "item_global_rate": rate,
        "item_global_value": value,
        "item_popularity": len(before) / (max(log_events, 1) / max(log_items, 1)),
        "item_terms": [float(term in catalog.terms[item]) for term in catalog.axis]
        + [0.0] * (catalog.term_length - len(catalog.axis)),
        "item_decade": [float(decade_of(catalog.years[item]) == place) for place in range(9)],
    }
    for d in (1, 7, 30):
        recent = [e for e in before if e.timestamp >= t - d * DAY]
        made[f"item_events_{d}d"] = len(recent)
        made[f"item_positives_{d}d"] = sum(e.label for e in recent)
    made["item_popularity_30d"] = made["item_events_30d"] / (max(log_events_30d, 1) / max(log_items, 1))
    return made
