"""Judges a trained run on a part of its data: the chosen network, or the networks of a range of epochs in one go.

    python offline/rank/evaluate.py --run runs/criteo
    python offline/rank/evaluate.py --run runs/criteo --epochs 1-5 --part validation
    python offline/rank/evaluate.py --run runs/criteo --set 'data.test=[/data/next_week.parquet]'

Prints a table and writes evaluation-<part>.json and, for the last network judged, calibration-<part>.png into the run's folder.
The networks of epochs are judged as they were trained, the chosen one with its calibration. Pick an epoch on validation; a choice
made on test rows says nothing about rows to come.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import write_json
from offline.figures import calibration_figure, save_figure
from offline.rank.click_run import judged, open_run
from offline.rank.text_table import markdown_table, number
from offline.rank.train import with_changes
from offline.training.config import PARTS, Part
from offline.training.metrics import calibration_curve
from offline.training.streaming_auc import StreamingAuc
from offline.training.trainer import EPOCHS

COLUMNS = ("auc", "streaming_auc", "streaming_auc_bound", "logloss", "calibration_error", "gauc")


def evaluate_run(folder: Path, part: Part, epochs: str = "", overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Judges networks of a run.

    Args:
        part: whose rows. epochs: `3`, `1-5` or `all`; the chosen network when empty. overrides: of the run's settings.

    Returns:
        `evaluated`: per network epoch (None for the chosen one), exact AUC, streaming AUC with its bound, logloss, calibration
        error, GAUC where the run names a group; `calibration`: the last one's curve.

    Raises:
        DataError, SettingsError: no run, no such epoch, or no rows of that part.
    """
    chosen = _epochs(folder, epochs) if epochs else [None]
    run = open_run(folder, epoch=chosen[0], overrides=overrides)
    torch.set_num_threads(run.config.training.threads)
    parts, evaluated = run.parts(), []
    for epoch in tqdm(chosen, desc=f"judge on {part}", unit=" networks", leave=False):
        opened = open_run(folder, epoch=epoch, overrides=overrides)
        if opened.encoder != run.encoder:  # each epoch has its own where ids grow
            run, parts = opened, opened.parts()
        scores = judged(run.config, parts, opened.ranker, part)
        streaming = StreamingAuc()
        streaming.update(torch.from_numpy(scores.labels), torch.from_numpy(scores.logits))
        streamed = streaming.result()
        known = streamed.value == streamed.value  # one class has no AUC
        evaluated.append(
            {
                "epoch": epoch,
                **scores.metrics,
                "streaming_auc": streamed.value if known else None,
                "streaming_auc_bound": streamed.bound if known else None,
            }
        )
    curve = calibration_curve(scores.labels, scores.probabilities)
    result = {"run": str(folder), "part": part, "evaluated": evaluated, "calibration": curve}
    write_json(folder / f"evaluation-{part}.json", result)
    figure = calibration_figure(curve, f"Calibration, {part} rows")
    if figure is not None:
        save_figure(folder / f"calibration-{part}.png", figure)
    return result


def evaluation_table(evaluated: Sequence[Mapping[str, Any]]) -> str:
    """The networks judged, one a line."""
    columns = [name for name in COLUMNS if any(one.get(name) is not None for one in evaluated)]
    rows = [
        [
            str(one["epoch"] or "chosen"),
            *(number(one.get(name), 6 if "bound" in name else 4) for name in columns),
            str(one["rows"]),
        ]
        for one in evaluated
    ]
    return markdown_table(["epoch", *columns, "rows"], rows)


def _epochs(folder: Path, text: str) -> list[int | None]:
    there = sorted(int(path.name.removeprefix("epoch-")) for path in (folder / EPOCHS).glob("epoch-*"))
    first, _, last = text.partition("-")
    try:
        wanted = there if text == "all" else list(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise SettingsError(f"--epochs {text!r}: write 3, 1-5 or all", field="epochs") from error
    missing = [epoch for epoch in wanted if epoch not in there]
    if missing or not wanted:
        raise SettingsError(f"--epochs {text!r}: {folder} has the epochs {there}", field="epochs")
    return list(wanted)


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    result = evaluate_run(Path(arguments.run), arguments.part, arguments.epochs, arguments.set)
    if not arguments.quiet:
        print(evaluation_table(result["evaluated"]), file=sys.stderr)
    return {name: value for name, value in result.items() if name != "calibration"}


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = with_changes(parser(__doc__ or "", common=[]), "settings that differ from the run's")
    arguments.add_argument("--run", required=True, help="folder of a run of train.py")
    arguments.add_argument("--epochs", default="", help="3, 1-5 or all; the chosen network when not given")
    arguments.add_argument("--part", default="test", choices=PARTS, help="whose rows")
    run_step("rank/evaluate", arguments, _step, argv)


if __name__ == "__main__":
    main()
