"""The daily benchmark's sums: what a gate held, the gap that was closed, and bars that are missed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.daily import benchmark, summary
from benchmarks.support.daily_run import Measured, poisoned_days
from data_exchange_center.errors import SettingsError


def measured(incremental: float, held: list[int]) -> Measured:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400).astype(float)
    aucs = {"never_updated": 0.7, "incremental": incremental, "retrained": 0.8}
    return Measured(
        poisoned=[3, 5],
        held={"bootstrap": held, "plain": [1, 2]},
        given_up={"bootstrap": [], "plain": []},
        auc={name: {day: value for day in (8, 10)} for name, value in aucs.items()},
        job_cpu_s=[1.0, 1.0],
        job_s=[1.0, 1.0],
        retrain_cpu_s=[10.0],
        retrain_s=[10.0],
        forgetting=aucs,
        replayed=10,
        brands=[(labels, labels + random.normal(size=400), random.random(400))],
    )


def test_what_was_measured_becomes_bars() -> None:
    result = summary([measured(0.796, [3, 5]), measured(0.796, [3, 5, 6])], 10)
    assert result["ok"] and result["gap_closed"]["mean"] == pytest.approx(0.96) and result["ratio"]["cost"] == 0.1
    assert result["gates"]["bootstrap"] == {
        "poisoned": 4, "poisoned_held": 4, "good_held_per_seed": [0, 1], "given_up_per_seed": [0, 0]
    }  # fmt: skip
    assert result["gates"]["plain"]["poisoned_held"] == 0 and result["new_brands"]["auc_ahead_low"] > 0


def test_a_bar_that_is_missed_is_named() -> None:
    bars = summary([measured(0.75, [3])], 10)["bars"]
    missed = {"poisoned_days_all_held", "gap_closed_80_percent", "forgetting_at_most_005"}
    assert {name for name, passed in bars.items() if not passed} == missed


def test_poisoned_days_are_drawn_by_seed_and_numbers_are_bounded() -> None:
    days = poisoned_days(40, 4, 1)
    assert days == poisoned_days(40, 4, 1) != poisoned_days(40, 4, 2) and len(set(days)) == 4 and min(days) >= 2
    with pytest.raises(SettingsError, match="at most days - 2"):
        benchmark(1, 5, 4)
