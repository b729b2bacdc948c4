"""How well clicks are predicted: the model that validation picks, judged once on test rows, beside LightGBM on the same features.

    python benchmarks/ctr_quality.py --data criteo-orc     a local copy; fetched when neither given nor in MARQUEE_TEST_DATA

Protocol: of 8 parts 0-5 train, 6 validates, 7 tests. Every candidate is trained over the seeds, each run stopped at the epoch
with the best validation logloss; the candidate with the best mean validation logloss is chosen, calibrated on validation rows and
judged on test rows. AUC and logloss are means over seeds, with a bootstrap interval over the test rows; the peer is LightGBM on
the numbers of the same encoder (numeric, count and out-of-fold target encodings), stopped on the same validation rows, and their
difference is paired. Last line: {"name", "machine", "protocol", "ours", "peer", "difference", …}.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from tqdm import tqdm

from benchmarks.common import machine
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.step import parser, run_step
from offline.datasets.criteo import Clicks, find_clicks
from offline.rank.click_run import judged, open_run, train_run
from offline.training.bootstrap import Interval, auc_statistic, bootstrapped, interval, logloss_statistic, paired
from offline.training.config import TrainConfig, load_config
from offline.training.ctr_data import CachedRows
from offline.training.metrics import auc, logloss

CONFIG = ROOT / "docs" / "examples" / "criteo_sample.yaml"
CANDIDATES: dict[str, dict[str, Any]] = {  # what differs from the file
    "deepfm_and_trees": {},
    "deepfm": {"trees.count": 0},
    "wide_deep_and_trees": {"model.name": "wide_deep", "model.options": {"wide_numbers": True, "dropout": 0.4}},
}
TREES = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "num_threads": 1,
    "verbose": -1,
}
ROUNDS, PATIENCE = 600, 50  # of LightGBM


@dataclass(frozen=True)
class Predicted:
    """Probabilities of one model over several seeds, for the same rows: float64 [seeds, rows]."""

    labels: np.ndarray
    probabilities: np.ndarray

    def summary(self) -> dict[str, float]:
        """Means over seeds, and their standard deviations."""
        areas = [auc(self.labels, one) for one in self.probabilities]
        losses = [logloss(self.labels, one) for one in self.probabilities]
        return {
            "auc": round(float(np.mean(areas)), 5),
            "auc_std": round(float(np.std(areas)), 5),
            "logloss": round(float(np.mean(losses)), 5),
            "logloss_std": round(float(np.std(losses)), 5),
        }

    def resampled(self) -> tuple[np.ndarray, np.ndarray]:
        """AUC and logloss, means over seeds, on the rows and on their resamples: [1 + resamples] each."""
        areas = bootstrapped([auc_statistic(self.labels, one) for one in self.probabilities], len(self.labels))
        losses = bootstrapped([logloss_statistic(self.labels, one) for one in self.probabilities], len(self.labels))
        return areas.mean(0), losses.mean(0)


def config_of(clicks: Clicks, folder: Path, name: str, seed: int) -> TrainConfig:
    """The settings of one run; test rows are not among its data."""
    values: dict[str, Any] = {
        f"data.{part}": [str(path) for path in getattr(clicks, part)] for part in ("train", "validation")
    }
    values |= {"data.test": [], "data.prepared": str(folder / "prepared")}
    values |= {"training.output": str(folder / f"{name}-{seed}"), "training.seed": seed}
    return load_config(CONFIG).with_values(**values, **CANDIDATES[name])


def chosen_candidate(clicks: Clicks, folder: Path, names: Sequence[str], seeds: int) -> tuple[str, dict[str, Any]]:
    """Trains every candidate; returns the one with the best mean validation logloss, and what validation says of each."""
    validation: dict[str, dict[str, Any]] = {}
    for name in names:
        runs = [train_run(config_of(clicks, folder, name, seed)) for seed in tqdm(range(seeds), desc=name, leave=False)]
        measured = [run["metrics"]["validation"] for run in runs]
        validation[name] = {key: round(float(np.mean([one[key] for one in measured])), 5) for key in ("auc", "logloss")}
        validation[name] |= {
            "epochs": [run["chosen_epoch"] for run in runs],
            "parameters": runs[0]["parameters"],
            "train_seconds": round(sum(run["train_seconds"] for run in runs), 1),
        }
    return min(validation, key=lambda name: validation[name]["logloss"]), validation


def network_on_test(clicks: Clicks, folder: Path, name: str, seeds: int) -> Predicted:
    """The chosen candidate's runs on test rows."""
    found = []
    for seed in range(seeds):
        tests = ",".join(str(path) for path in clicks.test)
        run = open_run(folder / f"{name}-{seed}", overrides=[f"data.test=[{tests}]"])
        found.append(judged(run.config, run.parts(), run.ranker, "test"))
    return Predicted(found[0].labels, np.stack([one.probabilities for one in found]))


def trees_on_test(clicks: Clicks, folder: Path, name: str, seeds: int) -> Predicted:
    """LightGBM on the numbers of the same encoder."""
    tests = ",".join(str(path) for path in clicks.test)
    parts = open_run(folder / f"{name}-0", overrides=[f"data.test=[{tests}]"]).parts()
    train, validation, test = (parts.cached(part) for part in ("train", "validation", "test"))
    probabilities = []
    for seed in tqdm(range(seeds), desc="lightgbm", leave=False):
        watched = _trees_data(validation)
        model = lightgbm.train(
            {**TREES, "seed": seed},
            _trees_data(train),
            ROUNDS,
            valid_sets=[watched],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        probabilities.append(np.asarray(model.predict(test.numbers.numpy())))
    return Predicted(test.labels.numpy(), np.stack(probabilities))


def _trees_data(rows: CachedRows) -> lightgbm.Dataset:
    return lightgbm.Dataset(rows.numbers.numpy(), rows.labels.numpy(), feature_name=list(rows.columns.numbers))


def quality(settings: Settings, names: Sequence[str], seeds: int) -> dict[str, Any]:
    """The benchmark; see the module's description."""
    clicks = find_clicks(settings)
    with tempfile.TemporaryDirectory(prefix="marquee-ctr-") as temporary:
        folder = Path(temporary)
        chosen, validation = chosen_candidate(clicks, folder, names, seeds)
        ours, peer = (judge(clicks, folder, chosen, seeds) for judge in (network_on_test, trees_on_test))
    (our_auc, our_loss), (peer_auc, peer_loss) = ours.resampled(), peer.resampled()
    return {
        "name": "ctr_quality",
        "machine": machine(),
        "protocol": "parts 0-5 train, 6 validates, 7 tests" if len(clicks.train) == 6 else clicks.source,
        "rows": {"test": len(ours.labels), "positives": int(ours.labels.sum())},
        "seeds": seeds,
        "chosen": chosen,
        "validation": validation,
        "ours": ours.summary()
        | {"auc_interval": _bounds(interval(our_auc)), "logloss_interval": _bounds(interval(our_loss))},
        "peer": {"model": f"lightgbm {lightgbm.__version__}", **peer.summary()}
        | {"auc_interval": _bounds(interval(peer_auc)), "logloss_interval": _bounds(interval(peer_loss))},
        "difference": {
            "auc": _difference(paired(our_auc, peer_auc)),
            "logloss": _difference(paired(our_loss, peer_loss)),
        },
        "ratio": round(float(our_auc[0] / peer_auc[0]), 4),
    }


def _bounds(known: Interval) -> list[float]:
    return [round(known.low, 4), round(known.high, 4)]


def _difference(known: Interval) -> dict[str, float]:
    return {name: round(value, 5) for name, value in known.to_json().items()}


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--seeds", type=int, default=3, help="runs of each model")
    arguments.add_argument("--models", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        known = Path(os.environ.get("MARQUEE_TEST_DATA", "")) / "criteo-orc"
        source = parsed.data or (str(known) if os.environ.get("MARQUEE_TEST_DATA") and known.exists() else "")
        chosen = settings.with_values(**{"data.dataset": "criteo", **({"data.source": source} if source else {})})
        return quality(chosen, parsed.models, parsed.seeds)

    run_step("ctr_quality", arguments, step, argv)


if __name__ == "__main__":
    main()
