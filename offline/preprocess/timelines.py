"""The three questions that every point-in-time feature asks of a log, each as one ibis expression.

A *timeline* has one row per (entity, timestamp): the events of one entity in one second are one group, because nothing says which
of them came first. Sums over a timeline therefore never depend on the order of rows. "Before t" means a timestamp
strictly smaller than t, everywhere.

Only window functions, grouping and equality joins are used, which DuckDB and Spark both run.
"""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c

SECONDS_PER_DAY = 86_400


def through_now(key: str | None, order: str = c.TIMESTAMP) -> ibis.expr.builders.LegacyWindowBuilder:
    """The window from a timeline's beginning through the current group."""
    return ibis.window(group_by=key, order_by=order, preceding=None, following=0)


def before_now(key: str | None) -> ibis.expr.builders.LegacyWindowBuilder:
    """The window from a timeline's beginning to the group before the current one."""
    return ibis.window(group_by=key, order_by=c.TIMESTAMP, preceding=(None, 1))


def strictly_earlier(key: str) -> ibis.expr.builders.LegacyWindowBuilder:
    """The same for a table of single events, which may share timestamps: every row with a smaller timestamp."""
    return ibis.range_window(group_by=key, order_by=c.TIMESTAMP, preceding=(None, 1))


def last_days(key: str | None, days: int) -> ibis.expr.builders.LegacyWindowBuilder:
    """The last `days` days, up to the current group and with it."""
    return ibis.range_window(group_by=key, order_by=c.TIMESTAMP, preceding=days * SECONDS_PER_DAY, following=0)


def sum_of_last(timeline: ir.Table, measure: str, events: int, *, key: str, seen: str, size: str) -> ir.FloatingValue:
    """Sum of a measure over an entity's last `events` events, the current group's included.

    Where the cut falls inside a group of tied events, the group gives its proportionate share: the mean over all orders in which
    the tied events may have happened.

    Args:
        timeline: one row per (entity, timestamp).
        measure: column with the group's sum of the measure.
        seen: column with the number of events so far, the current group's included; strictly increasing.
        size: column with the group's number of events.
    """
    window = ibis.range_window(group_by=key, order_by=seen, preceding=events - 1, following=0)
    oldest = timeline[measure].first().over(window)
    oldest_size = timeline[size].first().over(window)
    surplus = ibis.greatest(timeline[size].sum().over(window) - events, 0)
    return timeline[measure].sum().over(window) - surplus * oldest / oldest_size.cast("float64")


def as_of(
    events: ir.Table, probes: ir.Table, key: str, *, days: Sequence[int] = (), measures: Sequence[str] = ()
) -> ir.Table:
    """What a probe sees of an entity's timeline.

    Args:
        events: columns `key`, timestamp and the measures.
        probes: columns `key` and timestamp; may repeat.
        key: the entity's id column.
        days: lengths of the time windows that end just before the probe.
        measures: numeric columns of `events` to sum over each of them.

    Returns:
        One row per distinct probe: `key`, timestamp, `last` (timestamp of the entity's last event before it, null when there is
        none) and `<measure>_<days>d` per window, 0 when nothing falls into it.
    """
    nothing = {measure: ibis.literal(0, "int64") for measure in measures}
    points = ibis.union(
        events.select(
            key,
            c.TIMESTAMP,
            event=events[c.TIMESTAMP],
            probe=ibis.literal(0, "int8"),
            **{m: events[m] for m in measures},
        ),
        probes.select(key, c.TIMESTAMP, event=ibis.null("int64"), probe=ibis.literal(1, "int8"), **nothing).distinct(),
    )
    timeline = points.group_by(key, c.TIMESTAMP).aggregate(
        event=points.event.max(), probe=points.probe.max(), **{m: points[m].sum() for m in measures}
    )
    seen = timeline.select(
        key,
        c.TIMESTAMP,
        probe=timeline.probe,
        last=timeline.event.max().over(before_now(key)),
        **{
            f"{m}_{d}d": timeline[m]
            .sum()
            .over(ibis.range_window(group_by=key, order_by=c.TIMESTAMP, preceding=(d * SECONDS_PER_DAY, 1)))
            .fill_null(0)
            for m in measures
            for d in days
        },
    )
    return seen.filter(seen.probe == 1).drop("probe")
