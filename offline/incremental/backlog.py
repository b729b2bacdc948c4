"""Days that were held: what they taught waits, and is learned with a later day, or given up.

A day is tried again with each day that follows. One that fails twice is quarantined: it is reported, kept in the archive, and
never learned from unless a person accepts it (verdicts.py). The backlog has limits of age and size, beyond which the oldest days
are given up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date as Date

MOST_FAILURES = 2


@dataclass(frozen=True)
class HeldDay:
    """A day that waits.

    Attributes:
        date: of it. rows: that it would teach. failures: how often it failed. reasons: why, the last time.
    """

    date: str
    rows: int
    failures: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class GivenUp:
    """A day that is not tried any more: quarantined after failing twice, or beyond the limits."""

    date: str
    rows: int
    why: str
    reasons: tuple[str, ...]


def after_job(
    waiting: Sequence[HeldDay],
    learned: Collection[str],
    failed: Iterable[HeldDay],
    today: str,
    most_days: int,
    most_rows: int,
) -> tuple[list[HeldDay], list[GivenUp]]:
    """The backlog after a job.

    Args:
        waiting: before it. learned: dates whose rows went live with it.
        failed: days that failed in it, each with one failure: today's, or one that waited.
        today: of the job. most_days, most_rows: limits of age and of all rows together.

    Returns:
        What waits now, by date, and what was given up.
    """
    kept = {day.date: day for day in waiting if day.date not in learned}
    gone = []
    for day in failed:
        before = kept.pop(day.date, None)
        now = replace(day, failures=day.failures + (before.failures if before else 0))
        if now.failures >= MOST_FAILURES:
            gone.append(GivenUp(day.date, day.rows, f"quarantined: failed {now.failures} times", day.reasons))
        else:
            kept[day.date] = now
    rows = 0
    for day in sorted(kept.values(), key=lambda one: one.date, reverse=True):
        rows += day.rows
        age = (Date.fromisoformat(today) - Date.fromisoformat(day.date)).days
        why = (
            f"older than {most_days} days" if age > most_days else "more rows than may wait" if rows > most_rows else ""
        )
        if why:
            gone.append(GivenUp(day.date, day.rows, why, day.reasons))
            del kept[day.date]
            rows -= day.rows
    return sorted(kept.values(), key=lambda one: one.date), sorted(gone, key=lambda one: one.date)
