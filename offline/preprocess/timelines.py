"""The questions that every point-in-time feature asks of a log, each as one ibis expression.

A *timeline* has one row per (entity, timestamp): the events of one entity in one second are one group, because nothing says which
of them came first. Sums over a timeline therefore never depend on the order of rows. "Before t" means a timestamp
strictly smaller than t, everywhere.

Only window functions, grouping and equality joins are used, which DuckDB and Spark both run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ibis
import ibis.expr.types as ir
from ibis.expr.builders import LegacyWindowBuilder

from data_exchange_center import columns as c
from data_exchange_center.user_measures import SECONDS_PER_DAY


def through_now(key: str, order: str = c.TIMESTAMP) -> LegacyWindowBuilder:
    """The window from a timeline's beginning through the current group."""
    return ibis.window(group_by=key, order_by=order, preceding=None, following=0)


def before_now(key: str | None) -> LegacyWindowBuilder:
    """The window from a timeline's beginning to the group before the current one."""
    return ibis.window(group_by=key, order_by=c.TIMESTAMP, preceding=(None, 1))


def strictly_earlier(key: str) -> LegacyWindowBuilder:
    """The same for a table of single events, which may share timestamps: every row with a smaller timestamp."""
    return ibis.range_window(group_by=key, order_by=c.TIMESTAMP, preceding=(None, 1))


def last_days(key: str, days: int) -> LegacyWindowBuilder:
    """The last `days` days, up to the current group and with it."""
    return ibis.range_window(group_by=key, order_by=c.TIMESTAMP, preceding=days * SECONDS_PER_DAY, following=0)


def last_events(key: str, seen: str, events: int) -> LegacyWindowBuilder:
    """The groups that hold an entity's last `events` events, the current group's included.

    The oldest of these groups may hold more events than the cut leaves room for, see `sum_of_last`.

    Args:
        seen: column with the number of events so far, the current group's included; strictly increasing.
    """
    return ibis.range_window(group_by=key, order_by=seen, preceding=events - 1, following=0)


def first_group(timeline: ir.Table, measures: Sequence[str]) -> ir.StructValue:
    """The first group of a window, to be used with `.over(window)`.

    A sum over a window is the total now minus the total before the window's first group, so one look at that group serves every
    measure.

    Args:
        timeline: columns <measure> (of the group) and all_<measure> (so far, the group included).

    Returns:
        A struct: own_<measure> of the first group, before_<measure> the total before it.
    """
    fields = {f"own_{name}": timeline[name] for name in measures}
    fields |= {f"before_{name}": timeline[f"all_{name}"] - timeline[name] for name in measures}
    return ibis.struct(fields).first()


def sum_of_last(
    events: int, total: ir.NumericValue, size: ir.NumericValue, oldest: ir.NumericValue, oldest_size: ir.NumericValue
) -> ir.FloatingValue:
    """Sum of a measure over the last `events` events.

    Where the cut falls inside a group of tied events, the group gives its proportionate share: the mean over all orders in which
    the tied events may have happened.

    Args:
        events: how many.
        total, size: the measure and the number of events, summed over the groups of `last_events`.
        oldest, oldest_size: the same of the first of these groups.
    """
    surplus = ibis.greatest(size - events, 0)
    return total - surplus * oldest / oldest_size.cast("float64")


def as_of(
    events: ir.Table,
    probes: ir.Table,
    key: str,
    *,
    days: Sequence[int] = (),
    measures: Mapping[str, ir.IntegerValue] | None = None,
) -> ir.Table:
    """What a probe sees of an entity's timeline.

    Args:
        events: columns `key` and timestamp.
        probes: columns `key` and timestamp; may repeat.
        key: the entity's id column.
        days: lengths of the time windows that end just before the probe.
        measures: name -> integer column of `events` to sum over each window.

    Returns:
        One row per distinct probe: `key`, timestamp, `last` (timestamp of the entity's last event before it, null when there is
        none) and `<measure>_<days>d` per window, 0 when nothing falls into it.
    """
    measures = measures or {}
    points = ibis.union(
        events.select(key, c.TIMESTAMP, event=events[c.TIMESTAMP], probe=ibis.literal(0, "int8"), **measures),
        probes.select(
            key,
            c.TIMESTAMP,
            event=ibis.null("int64"),
            probe=ibis.literal(1, "int8"),
            **{measure: ibis.literal(0, "int64") for measure in measures},
        ),
    )
    timeline = points.group_by(key, c.TIMESTAMP).aggregate(
        event=points.event.max(), probe=points.probe.max(), **{m: points[m].sum() for m in measures}
    )
    in_days = {
        d: ibis.range_window(group_by=key, order_by=c.TIMESTAMP, preceding=(d * SECONDS_PER_DAY, 1)) for d in days
    }
    seen = timeline.select(
        key,
        c.TIMESTAMP,
        "probe",
        last=timeline.event.max().over(before_now(key)),
        **{f"{m}_{d}d": timeline[m].sum().over(in_days[d]).fill_null(0) for m in measures for d in days},
    )
    return seen.filter(seen.probe == 1).drop("probe")
