"""Trains a click ranker on labelled rows, as one YAML file says.

    python offline/rank/train.py --config docs/examples/criteo.yaml --set data.folder=/data/criteo
    python offline/rank/train.py --config docs/examples/criteo.yaml --set model.name=dcnv2 training.output=runs/dcnv2
    python offline/rank/train.py --config docs/examples/criteo.yaml --resume
    torchrun --nproc-per-node 2 offline/rank/train.py --config docs/examples/criteo.yaml

The output folder then holds the network of every epoch and the chosen one, checkpoints, the log, metrics and curves.
The epoch is picked on validation rows; test rows are judged once, at the end. A run that was killed goes on by --resume
and ends with the same weights as if it had not been.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline.rank.click_run import train_run
from offline.training.config import load_config
from offline.training.distributed import one_voice


def with_config(arguments: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the options by which a script takes a run's settings."""
    arguments.add_argument("--config", required=True, help="YAML of the run; docs/examples/criteo.yaml shows every key")
    arguments.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that differ from the file's, e.g. training.epochs=3 'model.options.hidden=[400,400]'",
    )
    return arguments


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    config = load_config(arguments.config, arguments.set)
    if arguments.seed is not None:
        config = config.with_values(**{"training.seed": arguments.seed})
    result = train_run(config, resume=arguments.resume)
    return {name: value for name, value in result.items() if name != "history"}


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = with_config(parser(__doc__ or ""))
    arguments.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    with one_voice():
        run_step("rank/train", arguments, _step, argv)


if __name__ == "__main__":
    main()
