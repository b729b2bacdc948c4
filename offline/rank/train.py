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
from offline.training.config import TrainConfig, load_config
from offline.training.distributed import one_voice


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser of a script that takes a run's settings; `config_of` reads them."""
    made = parser(description, common=["seed"])
    made.add_argument("--config", required=True, help="YAML of the run; docs/examples/criteo.yaml shows every key")
    return with_changes(
        made, "settings that differ from the file's, e.g. training.epochs=3 'model.options.hidden=[400,400]'"
    )


def with_changes(arguments: argparse.ArgumentParser, text: str) -> argparse.ArgumentParser:
    """Adds --set, by which single settings differ."""
    arguments.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)
    return arguments


def config_of(arguments: argparse.Namespace, *changes: str) -> TrainConfig:
    """The run's settings: the file's, with --set and --seed, and then `changes`, applied."""
    seed = [] if arguments.seed is None else [f"training.seed={arguments.seed}"]
    return load_config(arguments.config, [*arguments.set, *seed, *changes])


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    result = train_run(config_of(arguments), resume=arguments.resume)
    return {name: value for name, value in result.items() if name != "history"}


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = config_parser(__doc__ or "")
    arguments.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    with one_voice():
        run_step("rank/train", arguments, _step, argv)


if __name__ == "__main__":
    main()
