"""What a job measured and what its gate found, as JSON: `evidence/<date>.json`, from which the report is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offline.incremental.day_fit import DayFit
from offline.incremental.days import ArchivedDay
from offline.incremental.findings import Decision
from offline.training.metrics import plain


@dataclass(frozen=True)
class Attempt:
    """One candidate: the run's name, the days whose rows it learned from, the decision, and what both models scored."""

    run: str
    learned: tuple[str, ...]
    decision: Decision
    metrics: dict[str, Any]


def evidence_of(
    day: ArchivedDay,
    fit: DayFit,
    waiting: Mapping[str, DayFit],
    attempts: Sequence[Attempt],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The evidence of one day.

    Args:
        fit: of the live model on the day. waiting: on the days that waited.
        attempts: in their order; the last one decided.
    """
    return {
        "date": day.date,
        "rows": day.rows,
        "positives": day.positives,
        "live_on_the_day": {"auc": plain(fit.auc.value), "logloss": plain(fit.logloss.value)},
        "live_on_waiting_days": {date: plain(one.auc.value) for date, one in waiting.items()},
        "attempts": [
            {"run": one.run, "learned": list(one.learned), "metrics": one.metrics, **one.decision.to_json()}
            for one in attempts
        ],
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
