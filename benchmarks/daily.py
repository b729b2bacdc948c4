"""The daily job over simulated days: what it holds, what it gains over never updating, what it costs beside training anew.

    python benchmarks/daily.py                       40 days, 4 of them with 30 % of the labels flipped, 3 seeds
    python benchmarks/daily.py --seeds 1 --days 12 --poisoned 1

Every seed is a log of its own. Each day goes through the job itself (offline/incremental/job.py), in this process and without a
release, under the default gate and again under the plain rule `new AUC >= old AUC`. Models are tested on fresh rows of the last ten
days, as they are before the day, which no log holds and nobody poisoned; the full training sees the history and every day that was
not held, picks its epoch on their validation rows, and stands for the daily one on three of the ten days. The gap that the job
closes is that between the model that is never updated and the one trained anew, on those days. Seconds are CPU seconds of one
process; encoding texts, which is done once per text, is in the job's and not in the full training's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from benchmarks.common import machine
from benchmarks.support.daily_run import DailyRun, Measured, brand_rows
from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import Settings, load_settings
from data_exchange_center.step import parser, run_step
from offline.training.bootstrap import auc_statistic, bootstrapped, paired

PROCESSES = 2
LONGEST_S = 3600.0
MOST_DAYS, MOST_SEEDS = 365, 100


def one_seed(settings: Settings, seed: int, days: int, poisoned: int) -> Measured:
    """One seed; a function of its own for another process."""
    return DailyRun(settings, seed, days, poisoned).whole()


def benchmark(seeds: int, days: int, poisoned: int, processes: int = PROCESSES) -> dict[str, Any]:
    """The measurement.

    Raises:
        SettingsError: numbers out of range.
    """
    if not (1 <= seeds <= MOST_SEEDS and 4 <= days <= MOST_DAYS and 0 <= poisoned <= days - 2 and processes >= 1):
        raise SettingsError("daily: 1 to 100 seeds, 4 to 365 days, and at most days - 2 of them poisoned")
    with tempfile.TemporaryDirectory(prefix="marquee-daily-") as folder:
        values = {"data.store": folder, "data.dataset": "repair_shop"}
        settings = load_settings(environment={}).with_values(**values)
        arguments = [(settings, seed, days, poisoned) for seed in range(seeds)]
        if processes == 1 or seeds == 1:
            runs = [one_seed(*one) for one in arguments]
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(processes, seeds), context) as pool:
                waiting = [pool.submit(one_seed, *one) for one in arguments]
                runs = [one.result(timeout=LONGEST_S) for one in waiting]
    return summary(runs, days)


def summary(runs: list[Measured], days: int) -> dict[str, Any]:
    """The JSON object of all seeds."""
    gates = {gate: counted(runs, gate) for gate in ("bootstrap", "plain")}
    tested = sorted(runs[0].auc["retrained"])
    aucs = {
        name: np.array([np.mean([run.auc[name][day] for day in tested]) for run in runs])
        for name in ("never_updated", "incremental", "retrained")
    }
    closed = (aucs["incremental"] - aucs["never_updated"]) / (aucs["retrained"] - aucs["never_updated"])
    day_s, full_s = (
        float(np.mean([value for run in runs for value in values(run)]))
        for values in (lambda run: run.job_cpu_s, lambda run: run.retrain_cpu_s)
    )
    forgetting = {name: np.array([run.forgetting[name] for run in runs]) for name in runs[0].forgetting}
    every = {
        name: mean_std(np.array([np.mean(list(run.auc[name].values())) for run in runs]))
        for name in ("never_updated", "incremental")
    }
    bars = {
        "poisoned_days_all_held": gates["bootstrap"]["poisoned_held"] == gates["bootstrap"]["poisoned"],
        "good_days_held_at_most_2": max(gates["bootstrap"]["good_held_per_seed"]) <= 2,
        "gap_closed_80_percent": float(closed.mean()) >= 0.8,
        "cost_at_most_20_percent": day_s <= 0.2 * full_s,
        "forgetting_at_most_005": float((forgetting["retrained"] - forgetting["incremental"]).mean()) <= 0.005,
    }
    brands = new_brands(runs)
    if brands:
        bars["new_brands_ahead_of_unknown"] = brands["auc_ahead_low"] > 0
    return {
        "name": "daily",
        "machine": machine(),
        "ok": all(bars.values()),
        "bars": bars,
        "days": days,
        "seeds": len(runs),
        "gates": gates,
        "auc_last_days": {"tested_days": tested, **{name: mean_std(values) for name, values in aucs.items()}},
        "auc_last_ten_days": every,
        "gap_closed": mean_std(closed),
        "ours": {"day_cpu_seconds": round(day_s, 2), "day_seconds": round(mean_of(runs, "job_s"), 2)},
        "peer": {
            "full_training_cpu_seconds": round(full_s, 2),
            "full_training_seconds": round(mean_of(runs, "retrain_s"), 2),
        },
        "ratio": {"cost": round(day_s / full_s, 3)},
        "forgetting": {"rows": sum(run.replayed for run in runs)}
        | {name: mean_std(values) for name, values in forgetting.items()},
        "new_brands": brands,
    }


def counted(runs: list[Measured], gate: str) -> dict[str, Any]:
    """What a gate held of the poisoned days and of the good ones."""
    pairs = [(set(run.held[gate]), set(run.poisoned)) for run in runs]
    return {
        "poisoned": sum(len(poisoned) for _, poisoned in pairs),
        "poisoned_held": sum(len(held & poisoned) for held, poisoned in pairs),
        "good_held_per_seed": [len(held - poisoned) for held, poisoned in pairs],
        "given_up_per_seed": [len(run.given_up[gate]) for run in runs],
    }


def new_brands(runs: list[Measured]) -> dict[str, Any]:
    """By id against UNK on rows of brands that a promoted job saw for the first time, with a paired bootstrap interval."""
    if not any(run.brands for run in runs):
        return {}
    labels, by_id, as_unknown = brand_rows(runs)
    drawn = bootstrapped([auc_statistic(labels, by_id), auc_statistic(labels, as_unknown)], len(labels))
    ahead = paired(drawn[0], drawn[1])
    return {
        "rows": len(labels),
        "auc_by_id": round(float(drawn[0][0]), 4),
        "auc_as_unknown": round(float(drawn[1][0]), 4),
        "auc_ahead": round(ahead.value, 4),
        "auc_ahead_low": round(ahead.low, 4),
        "auc_ahead_high": round(ahead.high, 4),
    }


def mean_std(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": round(float(values.mean()), 4), "std": round(spread, 4)}


def mean_of(runs: list[Measured], name: str) -> float:
    """Mean of a list of numbers over all seeds."""
    return float(np.mean([value for run in runs for value in getattr(run, name)]))


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--seeds", type=int, default=3, help="runs, each with a log of its own (default: 3)")
    arguments.add_argument("--days", type=int, default=40, help="of each run (default: 40)")
    arguments.add_argument("--poisoned", type=int, default=4, help="of these days (default: 4)")
    arguments.add_argument("--processes", type=int, default=PROCESSES, help="seeds at a time (default: 2)")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return benchmark(parsed.seeds, parsed.days, parsed.poisoned, parsed.processes)

    run_step("daily", arguments, step, argv)


if __name__ == "__main__":
    main()
