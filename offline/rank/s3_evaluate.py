"""Judges the fit that saw train only on the test rows: AUC, GAUC, logloss, calibration, and what each feature is worth."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, read_json, write_json
from offline.models.layers import Sides
from offline.models.numbers import HEADS
from offline.models.ranker import Ranker
from offline.models.registry import architecture
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.fits import fits_of
from offline.rank.fitting import FitData, find_plan, load_fit, train_fit
from offline.rank.s1_feature_engi import ROWS_FILE
from offline.rank.s2_model_train import TRAINING_FILE
from offline.training.dataset import JUDGE, LikeRows
from offline.training.loop import predict_like
from offline.training.metrics import auc, calibration_curve, click_metrics, finite
from offline.training.reproducible import seed_everything

IMPORTANCE_ROWS = 6000
HISTOGRAM_BINS = 40
EVALUATION_FILE = "evaluation.json"


def evaluate_ranking(settings: Settings, *, compare_presets: bool = False) -> dict[str, Any]:
    """Protocol 1 on the judged fit; writes rank/evaluation.json.

    Args:
        compare_presets: also train every preset of the model and judge it the same way (minutes).

    Returns:
        `rank` {auc, gauc, logloss, ...}, `rows` per fit, `curves`, `calibration`, `score_histogram`, `importance`, `presets`.
        `rank` is empty and `reason` says why when the log holds positives only.

    Raises:
        DataError: training has not run, or the split left no test row.
    """
    workspace = Workspace(settings)
    judged, released = fits_of(settings)
    ranker = Ranker.load(judged.folder(settings))
    training = read_json(workspace.rank / TRAINING_FILE)
    result: dict[str, Any] = {
        "rank": {},
        "rows": {fit.name: read_json(fit.folder(settings) / "engineering.json")["rows"] for fit in (judged, released)},
        "curves": {"epochs": _epochs(training["curves"])},
        "model": training["model"],
        "preset": training["preset"],
        "presets": [],
    }
    if "like" not in ranker.config.heads:
        result["reason"] = "the log holds positives only: there are no exposed negatives to judge `like` on"
    else:
        rows = LikeRows.load(judged.folder(settings) / ROWS_FILE)
        result |= _judged(settings, ranker, rows)
        if compare_presets:
            result["presets"] = _compare(settings)
    write_json(workspace.rank / EVALUATION_FILE, result)
    return result


def judge(ranker: Ranker, rows: LikeRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, probabilities, users) of the test rows; members averaged, calibrated.

    Raises:
        DataError: the split left no test row.
    """
    places = rows.rows(JUDGE)
    if not len(places):
        raise DataError("the split left no test row to judge on; use more events, or another split")
    logits = np.mean([predict_like(ranker.member(n), rows, places) for n in range(len(ranker.members))], axis=0)
    slope, offset = ranker.calibration[HEADS.index("like")].tolist()
    return rows.labels[places].numpy(), 1 / (1 + np.exp(-(slope * logits + offset))), rows.users[places].numpy()


def _judged(settings: Settings, ranker: Ranker, rows: LikeRows) -> dict[str, Any]:
    labels, probabilities, users = judge(ranker, rows)
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    return {
        "rank": finite(click_metrics(labels, probabilities, users)),
        "calibration": calibration_curve(labels, probabilities),
        "score_histogram": {
            "edges": edges.tolist(),
            "positive": np.histogram(probabilities[labels == 1], edges)[0].tolist(),
            "negative": np.histogram(probabilities[labels == 0], edges)[0].tolist(),
        },
        "importance": permutation_importance(ranker, rows, settings.seed),
    }


def permutation_importance(ranker: Ranker, rows: LikeRows, seed: int) -> list[dict[str, Any]]:
    """What AUC loses when one input is shuffled among a sample of the test rows; most important first. Empty with one class.

    Inputs are what the network reads: numbers and crosses one by one, and the ids of each embedded feature.
    """
    seed_everything(seed, torch.get_num_threads())
    generator = torch.Generator().manual_seed(seed)
    judged = rows.rows(JUDGE)
    places = judged[torch.randperm(len(judged), generator=generator)[:IMPORTANCE_ROWS]]
    member = ranker.member(0)
    sample = rows.take(places)
    everything, labels = torch.arange(len(places)), sample.labels.numpy()
    base = auc(labels, predict_like(member, sample, everything))
    if np.isnan(base):
        return []
    shuffle = torch.randperm(len(places), generator=generator)
    found = []
    columns = member.trunk.number_columns("like")
    user = sample.numbers.user.shape[1]
    for number, name in enumerate(tqdm([*columns, *sample.inputs], desc="permutation importance", leave=False)):
        changed = (
            _shuffled_number(sample, number, user, shuffle)
            if number < len(columns)
            else _shuffled_ids(sample, name, shuffle)
        )
        drop = base - auc(labels, predict_like(member, changed, everything))
        found.append({"feature": name.split(".")[-1], "auc_drop": drop})
    return sorted(found, key=lambda one: -one["auc_drop"])


def _shuffled_number(rows: LikeRows, number: int, user_columns: int, order: Tensor) -> LikeRows:
    side, column = (0, number) if number < user_columns else (1, number - user_columns)
    sides = [tensor.clone() for tensor in rows.numbers]
    sides[side][:, column] = sides[side][order, column]
    return LikeRows(rows.inputs, Sides(*sides), rows.labels, rows.users, rows.parts)


def _shuffled_ids(rows: LikeRows, name: str, order: Tensor) -> LikeRows:
    inputs = {**rows.inputs, name: rows.inputs[name][order]}
    return LikeRows(inputs, rows.numbers, rows.labels, rows.users, rows.parts)


def _epochs(curves: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Curves of all fits and heads as one flat list for the report."""
    flat = []
    for fit, heads in curves.items():
        for head, epochs in heads.items():
            for one in epochs:
                validation = {f"validation_{name}": value for name, value in one["validation"].items()}
                flat.append(
                    {"fit": fit, "head": head, "epoch": one["epoch"], "train_loss": one["train_loss"], **validation}
                )
    return flat


def _compare(settings: Settings) -> list[dict[str, Any]]:
    """Every preset of the model, trained and judged as the judged fit is."""
    spec, judged = load_spec(settings.features.spec), fits_of(settings)[0]
    encoder = FittedEncoder.load(judged.folder(settings), spec)
    compared = []
    for preset in tqdm(architecture(settings.rank.model).presets, desc="presets"):
        data: FitData = load_fit(settings, judged, encoder, preset)
        plan, _, learned = find_plan(settings, encoder, data)
        ranker, _ = train_fit(settings, encoder, data, plan, learned)
        compared.append({"preset": preset, "epochs": plan.like_epochs, **click_metrics(*judge(ranker, data.rows))})
    return compared


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    result = evaluate_ranking(settings, compare_presets=arguments.compare_presets)
    return {key: result[key] for key in ("rank", "rows", "presets", "reason") if key in result} | {
        "most_important": result.get("importance", [])[:10]
    }


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--compare-presets", action="store_true", help="train and judge every preset of the model too"
    )
    run_step("rank/s3_evaluate", arguments, _step, argv)


if __name__ == "__main__":
    main()
