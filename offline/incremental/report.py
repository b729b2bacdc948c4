"""The daily job's report: one HTML page over all days, with its pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from data_exchange_center.workspace import read_json
from offline.figures import COLOURS, axes, picture
from offline.incremental.state import JobState
from offline.release.report import write_page

TEMPLATE = "daily_report.html.j2"
SHOWN = 120  # days of the pictures and the table, the newest


def write_daily_report(folder: Path, state: JobState, gate: str) -> Path:
    """Writes `report.html` from the evidence of every finished day.

    Args:
        folder: of the job. state: after the newest day. gate: the rule that decides.
    """
    dates = sorted(state.finished)[-SHOWN:]
    days = [read_json(folder / "evidence" / f"{date}.json") for date in dates]
    outcomes = [state.finished[date].outcome for date in dates]
    figures = {
        "AUC on the day's validation": models_figure(days, outcomes, "day", "auc"),
        "AUC on replayed days": models_figure(days, outcomes, "replayed", "auc"),
        "The live model on each day": day_figure(days, outcomes),
        "Logloss on replayed days": models_figure(days, outcomes, "replayed", "logloss"),
    }
    target = folder / "report.html"
    write_page(
        target,
        TEMPLATE,
        title="The daily job",
        gate=gate,
        live=state.live,
        days=[_row(day, state) for day in reversed(days)],
        waiting=state.waiting,
        given_up=state.given_up,
        verdicts=state.verdicts,
        findings=days[-1]["attempts"][-1]["findings"] if days else [],
        newest=dates[-1] if dates else "",
        pictures={name: base64.b64encode(picture(figure)).decode() for name, figure in figures.items() if figure},
    )
    return target


def models_figure(days: Sequence[Mapping[str, Any]], outcomes: Sequence[str], part: str, metric: str) -> Figure | None:
    """Live model and candidate over the days, on the same rows each day; held days marked."""
    series = {name: [_metric(day, name, part, metric) for day in days] for name in ("live", "candidate")}
    if all(value is None for values in series.values() for value in values):
        return None
    figure, chart = axes(f"{metric} on {'the day' if part == 'day' else 'replayed days'}", "day", metric)
    for (name, values), colour in zip(series.items(), COLOURS, strict=False):
        chart.plot(range(len(days)), _numbers(values), marker="o", markersize=3, label=name, color=colour)
    _marked(chart, days, outcomes, _numbers(series["candidate"]))
    return figure


def day_figure(days: Sequence[Mapping[str, Any]], outcomes: Sequence[str]) -> Figure | None:
    """The live model's AUC on each whole day, before it learned from it: what tells spoiled labels."""
    values = _numbers([day["live_on_the_day"]["auc"] for day in days])
    if not days:
        return None
    figure, chart = axes("AUC of the live model on all rows of a day", "day", "auc")
    chart.plot(range(len(days)), values, marker="o", markersize=3, color=COLOURS[0], label="live")
    _marked(chart, days, outcomes, values)
    return figure


def _marked(chart: Any, days: Sequence[Mapping[str, Any]], outcomes: Sequence[str], values: Sequence[float]) -> None:
    held = [place for place, outcome in enumerate(outcomes) if outcome == "held"]
    chart.scatter(held, [values[place] for place in held], marker="x", s=60, color=COLOURS[4], label="held", zorder=3)
    ticks = sorted({0, len(days) // 2, len(days) - 1})
    chart.set_xticks(ticks, [days[place]["date"] for place in ticks])
    chart.legend(frameon=False, fontsize=9)


def _metric(day: Mapping[str, Any], model: str, part: str, metric: str) -> float | None:
    value = day["attempts"][-1]["metrics"][model].get(part, {}).get(metric)
    return None if value is None else float(value)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _row(day: Mapping[str, Any], state: JobState) -> dict[str, Any]:
    outcome, last = state.finished[day["date"]], day["attempts"][-1]
    row: dict[str, Any] = {"date": day["date"], "outcome": outcome.outcome, "rows": day["rows"]}
    row["positives"] = day["positives"] / day["rows"]
    row["live model on the day"] = day["live_on_the_day"]["auc"]
    for part in ("day", "replayed"):
        for model in ("live", "candidate"):
            row[f"{model}, {part}"] = last["metrics"][model].get(part, {}).get("auc")
    row["learned"] = ", ".join(outcome.learned)
    row["release"] = outcome.release
    row["why held"] = "; ".join(outcome.reasons)
    return row
