"""How the benchmark of a chain cuts days and compares models; test_chain_scene.py runs all of it on a small log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.daily_chain import MODELS, Story, compared, days_of, drawn, share_closed, table_of

DAY = 86_400


def test_a_day_with_few_events_is_learned_with_the_days_after_it() -> None:
    sizes = [5, 1, 2, 4, 6, 1]
    events = pa.table({"timestamp": np.repeat(np.arange(len(sizes)) * DAY, sizes)})
    history, days = days_of(events, least=3, days=3)
    assert [(date, len(rows)) for date, rows in days] == [("1970-01-04", 4), ("1970-01-05", 6), ("1970-01-06", 1)]
    assert len(history) == 8


def story_of(auc: dict[str, list[float]]) -> Story:
    story = Story(dates=["2026-01-01", "2026-01-02"], rows=[10, 10], outcomes=["promoted", "held"], search=[1.0, 1.0])
    for name, values in auc.items():
        story.quality[name] = [{"auc": value, "gauc": value, "logloss": 1 - value} for value in values]
        story.recall[name] = [np.array([0.5]), np.array([1.0])]
        story.seconds[name] = [2.0, 4.0]
    return story


def test_gains_are_paired_by_day(tmp_path: Path) -> None:
    story = story_of(dict(zip(MODELS, ([0.6, 0.9], [0.61, 0.91], [0.62, 0.92]), strict=True)))
    found = compared(story)
    gain = found["incremental"]["auc_gain"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.01, 0.01, 0.01))
    assert found["incremental"]["recall50"].value == pytest.approx(0.75)
    assert found["full retrain"]["cpu_seconds_a_day"] == 3.0
    assert share_closed(found, "auc") == pytest.approx(0.5)
    assert "1 promoted, 1 held" in table_of(found, story)
    drawn(story, tmp_path / "days.png")
    assert (tmp_path / "days.png").stat().st_size > 1000
