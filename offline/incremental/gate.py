"""Whether a candidate takes the live model's place: decision rules as strategies.

    plain       the candidate's AUC on the judged rows is at least the live model's
    bootstrap   the default:
                  the day must look like the others to the live model (day_fit.py), else nothing is learned from it yet
                  overall and on the replayed days the candidate must be shown not to be worse, in AUC and logloss, by more than a
                  margin (the whole paired bootstrap interval of candidate minus live lies on the right side of it)
                  on no segment with enough rows it may be shown to be worse by more than a margin (intervals widened for the
                  number of segments, after Bonferroni)

Both models are judged on the same rows: the day's validation and samples of earlier, promoted days' validation. None of
them was learned from by either, and rows that a benchmark or a test holds back are never among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import IncrementalSettings
from offline.incremental.day_fit import DayFit, unlike_the_others
from offline.incremental.findings import Decision, Finding, decided
from offline.training.bootstrap import LEVEL, Interval, auc_statistic, bootstrapped, logloss_statistic, paired
from offline.training.metrics import auc


@dataclass(frozen=True)
class Judged:
    """The rows on which both models were judged, [rows] each.

    Attributes:
        labels: 0 or 1. live, candidate: probabilities.
        replayed: bool, of an earlier day.
        segments: column -> value of each row.
    """

    labels: np.ndarray
    live: np.ndarray
    candidate: np.ndarray
    replayed: np.ndarray
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All that a gate may look at.

    Attributes:
        judged: both models on the same rows.
        day: the live model on the whole day. good_days: on days that were promoted, before they were.
        seed: of the resamples.
    """

    judged: Judged
    day: DayFit
    good_days: Sequence[DayFit]
    seed: int = 0


Gate = Callable[[Evidence, IncrementalSettings], Decision]


def plain_gate(evidence: Evidence, settings: IncrementalSettings) -> Decision:
    """New AUC at least old AUC."""
    rows = evidence.judged
    new, old = auc(rows.labels, rows.candidate), auc(rows.labels, rows.live)
    note = f"{new:.4f} against {old:.4f}"
    passed = not new < old  # one class alone says nothing
    return decided([Finding("AUC of the candidate", passed, new - old, limit=0.0, rows=len(rows.labels), note=note)])


def bootstrap_gate(evidence: Evidence, settings: IncrementalSettings) -> Decision:
    """See the module's docstring."""
    rows = evidence.judged
    findings = unlike_the_others(evidence.day, evidence.good_days, settings)
    everything = np.ones(len(rows.labels), bool)
    for name, chosen in (("all judged rows", everything), ("replayed days", rows.replayed)):
        findings += _not_worse(name, rows, chosen, settings, evidence.seed)
    findings += _no_segment_harmed(rows, settings, evidence.seed)
    return decided(findings)


GATES: dict[str, Gate] = {"plain": plain_gate, "bootstrap": bootstrap_gate}


def gate_named(name: str) -> Gate:
    """A decision rule.

    Raises:
        SettingsError: there is none of that name.
    """
    if name not in GATES:
        raise SettingsError(f"no gate {name!r}; there are {', '.join(GATES)}", field="incremental.gate")
    return GATES[name]


def differences(
    rows: Judged, chosen: np.ndarray, resamples: int, seed: int, level: float = LEVEL
) -> tuple[Interval, Interval]:
    """Candidate minus live on some of the rows: AUC and logloss, each with its paired bootstrap interval."""
    labels, live, candidate = rows.labels[chosen], rows.live[chosen], rows.candidate[chosen]
    statistics = [auc_statistic(labels, candidate), auc_statistic(labels, live)]
    statistics += [logloss_statistic(labels, candidate), logloss_statistic(labels, live)]
    drawn = bootstrapped(statistics, len(labels), resamples, seed)
    return paired(drawn[0], drawn[1], level), paired(drawn[2], drawn[3], level)


def _not_worse(name: str, rows: Judged, chosen: np.ndarray, settings: IncrementalSettings, seed: int) -> list[Finding]:
    count = int(chosen.sum())
    if not _both_classes(rows.labels[chosen]):
        return [Finding(f"candidate on {name}", True, None, rows=count, note="no rows of both classes")]
    order, loss = differences(rows, chosen, settings.resamples, seed)
    return [
        _finding(f"AUC on {name}", order, order.low >= -settings.auc_margin, -settings.auc_margin, count),
        _finding(f"logloss on {name}", loss, loss.high <= settings.logloss_margin, settings.logloss_margin, count),
    ]


def _no_segment_harmed(rows: Judged, settings: IncrementalSettings, seed: int) -> list[Finding]:
    found = [
        (f"{column} {value}", rows_of)
        for column, values in rows.segments.items()
        for value, rows_of in _largest(values, settings.segment_rows, settings.most_segments)
        if _both_classes(rows.labels[rows_of])
    ]
    made = []
    for name, chosen in found:
        level = 1 - (1 - LEVEL) / len(found)
        order, _ = differences(rows, chosen, settings.resamples, seed, level)
        limit = -settings.segment_margin
        made.append(_finding(f"AUC on {name}", order, order.high >= limit, limit, int(chosen.sum())))
    return made


def _largest(values: np.ndarray, least: int, most: int) -> list[tuple[str, np.ndarray]]:
    """The most frequent values of a column, of at least so many rows, and which rows have them."""
    names, counts = np.unique(values, return_counts=True)
    order = [place for place in np.argsort(-counts, kind="stable") if counts[place] >= least][:most]
    return [(str(names[place]), values == names[place]) for place in order]


def _both_classes(labels: np.ndarray) -> bool:
    return bool(len(labels)) and 0 < labels.sum() < len(labels)


def _finding(name: str, found: Interval, passed: bool, limit: float, rows: int) -> Finding:
    note = f"candidate minus live {found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}], limit {limit:+.4f}"
    return Finding(name, passed, found.value, found.low, found.high, limit, rows, note)
