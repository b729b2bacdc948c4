"""What answers about users and about items have in common."""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from offline.preprocess.judged_events import hour, log_before_hour


def placed_onto(seen: ir.Table, onto: ir.Table | None, key: str) -> ir.Table:
    """What probes see, one row per row of `onto`; by default one per distinct probe.

    Args:
        seen: see `timelines.as_of`.
        onto: columns `key` and timestamp, each pair a probe, and any others, which are kept.
        key: the entity's id column.
    """
    if onto is None:
        return seen
    seen = seen.rename(seen_key=key, seen_timestamp=c.TIMESTAMP)
    return onto.left_join(seen, [(key, "seen_key"), (c.TIMESTAMP, "seen_timestamp")])


def with_state(found: ir.Table, states: ir.Table, key: str) -> ir.Table:
    """Adds the state after the last event before each probe; where there is none, its totals are zeros."""
    totals = [name for name in states.columns if name not in (key, c.TIMESTAMP)]
    states = states.rename(state_key=key, state_timestamp=c.TIMESTAMP)
    found = found.left_join(states, [(key, "state_key"), ("last", "state_timestamp")])
    return found.mutate(**{name: found[name].fill_null(0) for name in totals})


def with_log_totals(found: ir.Table, probes: ir.Table, judged: ir.Table) -> ir.Table:
    """Adds the log's totals before the hour of each probe, see `log_before_hour`."""
    totals = log_before_hour(judged, probes).rename(log_hour=c.TIMESTAMP)
    placed = found.mutate(probe_hour=hour(found[c.TIMESTAMP]))
    return placed.left_join(totals, [("probe_hour", "log_hour")])


def array_of(elements: Sequence[ir.NumericValue], length: int) -> ir.ArrayValue:
    """Numbers as array<float32>, zeros appended up to `length`."""
    zeros = [ibis.literal(0.0, "float32")] * (length - len(elements))
    return ibis.array([*(element.cast("float32") for element in elements), *zeros])
