"""Trains the ranker twice: the judged fit, on train only, and the released fit, on every row before the held-out ones; exports."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, write_json
from offline.rank.chain_export import export_model
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.fits import fits_of
from offline.rank.fitting import Optimizers, find_plan, load_fit, train_fit
from offline.rank.grown_ranker import save_optimizers
from offline.training.loop import Epoch
from offline.training.metrics import finite

log = logging.getLogger("marquee")

TRAINING_FILE = "training.json"


def train_model(settings: Settings) -> dict[str, Any]:
    """Finds epochs and calibration on held-out parts of train, trains both fits, and exports the released one.

    Both fits learn for the same number of epochs. Networks are written as safetensors and JSON, curves to rank/training.json.

    Returns:
        Epochs, calibration, rows, parity of the exported graph, and seconds per part.

    Raises:
        DataError: `s1_feature_engi` has not run. SettingsError: no such model or preset.
    """
    spec = load_spec(settings.features.spec)
    judged, released = fits_of(settings)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    encoder = FittedEncoder.load(judged.folder(settings), spec)
    data = load_fit(settings, judged, encoder, settings.rank.preset)
    plan, watched, learned = find_plan(settings, encoder, data)
    seconds["plan"] = _lap(started)
    log.info("  like learns %d epochs, choose %d", plan.like_epochs, plan.choose_epochs)
    curves = {"judged": watched}
    result: dict[str, Any] = {}
    for fit in (judged, released):
        started = time.perf_counter()
        if fit is released:
            encoder = FittedEncoder.load(fit.folder(settings), spec)
            data = load_fit(settings, fit, encoder, settings.rank.preset)
        optimizers: Optimizers = {}
        ranker, trained = train_fit(settings, encoder, data, plan, learned if fit is judged else None, optimizers)
        ranker.save(fit.folder(settings))
        if fit is released:
            curves["released"] = trained
            save_optimizers(fit.folder(settings), optimizers)
        seconds[fit.name] = _lap(started)
        result[fit.name] = {"rows": len(data.rows.labels), "lists": sum(len(group) for group in data.lists)}
    started = time.perf_counter()
    exported = export_model(settings, ranker, encoder)
    seconds["export"] = _lap(started)
    result |= {
        "model": settings.rank.model,
        "preset": settings.rank.preset,
        "like_epochs": plan.like_epochs,
        "choose_epochs": plan.choose_epochs,
        "calibration": plan.calibration,
        "parameters": sum(parameter.numel() for parameter in ranker.parameters()),
        "parity": exported["parity"],
        "seconds_by_part": seconds,
    }
    write_json(
        Workspace(settings).rank / TRAINING_FILE,
        {
            **result,
            "curves": {
                name: {head: [_plain(one) for one in epochs] for head, epochs in heads.items()}
                for name, heads in curves.items()
            },
        },
    )
    return result


def _plain(epoch: Epoch) -> dict[str, Any]:
    """What JSON can hold: None for what one class, or no row, leaves unmeasured."""
    return {**asdict(epoch), "validation": finite(epoch.validation)}


def _lap(started: float) -> float:
    return round(time.perf_counter() - started, 2)


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    if arguments.preset:
        settings = settings.with_values(**{"rank.preset": arguments.preset})
    return train_model(settings)


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--preset", help="variant of the model (default: the settings' rank.preset)")
    run_step("rank/s2_model_train", arguments, _step, argv)


if __name__ == "__main__":
    main()
