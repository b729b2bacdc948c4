"""Each event beside what was known of its item, its user and the log just before it: the ground of out-of-sample residuals.

Rates are smoothed: (positives + PRIOR_EVENTS * global rate) / (events + PRIOR_EVENTS), and mean values alike. The global
rate is that of all events before the event's hour: hours keep its table small on any log, and the rate of a whole log does not
change within one.

Rates and values are kept in units of 1/1024 (int64): sums of integers are exact in any order of rows, so features are
reproducible to the bit on any number of threads or machines.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from data_exchange_center.user_measures import NEUTRAL_RATE, SECONDS_PER_DAY, UNIT, smoothed
from offline.preprocess.timelines import before_now, strictly_earlier

RATE_BITS = 10  # a rate is at most UNIT
POPULARITY_BITS = 15  # ln(1 + events) in units stays below 2**15 up to e**31 events
SECONDS_PER_HOUR = 3600
EVENT_BITS = 31  # events and positives of one user or item, summed as one integer


def in_units(value: ir.NumericValue) -> ir.IntegerValue:
    """A number in units of 1/1024, rounded."""
    return (value.cast("float64") * UNIT).round().cast("int64")


def from_units(units: ir.NumericValue) -> ir.FloatingValue:
    """A number from units of 1/1024. The cast comes first: a literal 1024.0 would be a decimal, and the quotient one too."""
    return units.cast("float64") / UNIT


def hour(timestamp: ir.IntegerValue) -> ir.IntegerValue:
    """Start of a timestamp's hour, unix seconds."""
    return timestamp - timestamp % SECONDS_PER_HOUR


def log_before_hour(events: ir.Table, probes: ir.Table) -> ir.Table:
    """The log's totals before the hour of each probe.

    Args:
        events: columns item_id, timestamp, label, value (units).
        probes: column timestamp.

    Returns:
        One row per hour that has a probe: timestamp (the hour), global_rate, global_value (float64; 0.5 and 0 when nothing was
        known), log_events, log_events_30d, log_items (int64: events so far and in 30 days, distinct items so far).
    """
    first_seen = events.group_by(c.ITEM_ID).aggregate(**{c.TIMESTAMP: events[c.TIMESTAMP].min()})
    zero = ibis.literal(0, "int64")
    one = ibis.literal(1, "int64")
    points = ibis.union(
        events.select(
            hour(events[c.TIMESTAMP]).name(c.TIMESTAMP),
            n=one,
            label=events[c.LABEL].cast("int64"),
            value=events.value,
            items=zero,
            probe=zero,
        ),
        first_seen.select(
            hour(first_seen[c.TIMESTAMP]).name(c.TIMESTAMP), n=zero, label=zero, value=zero, items=one, probe=zero
        ),
        probes.select(
            hour(probes[c.TIMESTAMP]).name(c.TIMESTAMP), n=zero, label=zero, value=zero, items=zero, probe=one
        ).distinct(),
    )
    hours = points.group_by(c.TIMESTAMP).aggregate(
        **{name: points[name].sum() for name in ("n", "label", "value", "items", "probe")}
    )
    before = before_now(None)
    month = ibis.range_window(order_by=c.TIMESTAMP, preceding=(30 * SECONDS_PER_DAY, 1))
    totals = hours.select(
        c.TIMESTAMP,
        "probe",
        **{name: hours[name].sum().over(before).fill_null(0) for name in ("n", "label", "value", "items")},
        recent=hours.n.sum().over(month).fill_null(0),
    )
    known = totals.filter(totals.probe > 0)
    count = ibis.greatest(known.n, 1).cast("float64")
    return known.select(
        c.TIMESTAMP,
        global_rate=ibis.ifelse(known.n > 0, known.label / count, NEUTRAL_RATE),
        global_value=known.value / count / UNIT,
        log_events=known.n.cast("int64"),
        log_events_30d=known.recent.cast("int64"),
        log_items=known["items"].cast("int64"),
    )


def standing(
    label: ir.IntegerValue,
    value: ir.NumericValue,
    events: ir.IntegerValue,
    global_rate: ir.FloatingValue,
    global_value: ir.FloatingValue,
) -> dict[str, ir.IntegerValue]:
    """What an event is judged against: its item's (or user's) smoothed rate and mean value, int64 in units.

    Args:
        label, value, events: positives, summed values in units, and number of events before.
        global_rate, global_value: of the log.
    """
    return {
        "rate": in_units(smoothed(label, events.cast("float64"), global_rate)),
        "value": smoothed(value, events.cast("float64"), global_value * UNIT).round().cast("int64"),
    }


def popularity_of(events: ir.IntegerValue) -> ir.IntegerValue:
    """ln(1 + events) in units."""
    return in_units((events + 1).ln())


def judged_events(events: ir.Table) -> ir.Table:
    """Known events with what was known before each of them.

    Args:
        events: columns user_id, item_id, timestamp, label, rating (may be null).

    Returns:
        One row per event: user_id, item_id, timestamp, label (int64) and, in units of 1/1024, int64: value (rating, else label),
        item_rate, item_value, user_rate, user_value (smoothed, strictly before the event's timestamp), popularity (ln(1 + the
        item's events before)).
    """
    label = events[c.LABEL].cast("int64")
    plain = events.select(
        c.USER_ID,
        c.ITEM_ID,
        c.TIMESTAMP,
        label=label,
        value=in_units(ibis.coalesce(events[c.RATING].cast("float64"), label.cast("float64"))),
        counts=label * (1 << EVENT_BITS) + 1,
        hour=hour(events[c.TIMESTAMP]),
    )
    of_log = log_before_hour(plain, plain).rename(log_hour=c.TIMESTAMP)
    earlier = {
        f"{entity}_{name}": total.over(strictly_earlier(key)).fill_null(0)
        for entity, key in (("item", c.ITEM_ID), ("user", c.USER_ID))
        for name, total in (("counts", plain.counts.sum()), ("value", plain.value.sum()))
    }
    seen = plain.mutate(**earlier).join(of_log, [("hour", "log_hour")], how="inner")
    events_of = {entity: seen[f"{entity}_counts"] & ((1 << EVENT_BITS) - 1) for entity in ("item", "user")}
    label_of = {entity: seen[f"{entity}_counts"] >> EVENT_BITS for entity in ("item", "user")}
    found: dict[str, ir.IntegerValue] = {}
    for entity in ("item", "user"):
        total = seen[f"{entity}_value"]
        judged = standing(label_of[entity], total, events_of[entity], seen.global_rate, seen.global_value)
        found |= {f"{entity}_{name}": of_entity for name, of_entity in judged.items()}
    found["popularity"] = popularity_of(events_of["item"])
    return seen.select(c.USER_ID, c.ITEM_ID, c.TIMESTAMP, "label", "value", **found)
