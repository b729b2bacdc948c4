"""The click scene's offline stages in order: rows -> encoder and network -> one graph -> a release of kind "scorer".

    python offline/s0_run_clicks.py --dataset criteo                     the sample, fetched, or --data: a local copy
    python offline/s0_run_clicks.py --dataset criteo-synthetic
    python offline/s0_run_clicks.py --dataset criteo --config own.yaml --set model.name=dcnv2

Stages whose inputs, settings and code did not change are not run again; a training that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace
from offline.datasets.criteo import SPLITS, Clicks, find_clicks
from offline.rank.click_run import METRICS, NETWORK, PREDICTIONS, read_config, train_run
from offline.rank.export import EXPORT, export_run
from offline.release.s2_pack_scorer import pack_scorer
from offline.stages import Stage, run_stages
from offline.training.config import TrainConfig, load_config

CONFIG = ROOT / "docs" / "examples" / "criteo.yaml"
CODE = ("offline/datasets", "offline/reading", "offline/models", "offline/training", "offline/rank")


def run_clicks(
    settings: Settings, config: Path = CONFIG, overrides: Sequence[str] = (), *, again: bool = False
) -> dict[str, Any]:
    """Runs what is not up to date, and packs a release.

    Args:
        settings: the dataset, where its copy and the store are, and the seed.
        config: YAML of the training run; its files and its output are those of the settings.
        overrides: of the run's settings, `section.name=value`.
        again: run every stage.

    Returns:
        The release (see pack_scorer), rows and metrics of each part, the files of the test rows in their order with what the
        network said about them, and `stages`: seconds of each, 0 when it was up to date.
    """
    workspace = Workspace(settings)
    folder, records = workspace.seed / "clicks", workspace.seed / "stages"
    clicks = find_clicks(settings)
    wanted = config_of(settings, clicks, folder, config, overrides)
    depends = ("seed", "data", "features.spec")
    stages = [
        Stage("clicks_data", lambda _: found(clicks, wanted), depends, CODE, (), records, always=True),
        Stage(
            "clicks_model",
            lambda _: trained(wanted),
            depends,
            CODE,
            (folder / METRICS, folder / NETWORK, folder / PREDICTIONS),
            records,
        ),
        Stage("clicks_export", lambda _: export_run(folder), depends, CODE, (folder / EXPORT,), records),
    ]
    results = run_stages(settings, stages, again=again)
    packed = pack_scorer(settings, folder)
    return {
        **packed,
        "rows": results["clicks_model"]["rows"],
        "source": clicks.source,
        "parity": results["clicks_export"]["parity"],
        "test_files": [str(path) for path in wanted.data.paths("test")],
        "test_scores": str(folder / PREDICTIONS / "test.parquet"),
        "stages": {name: 0.0 if result["reused"] else result["seconds"] for name, result in results.items()},
    }


def config_of(settings: Settings, clicks: Clicks, folder: Path, config: Path, overrides: Sequence[str]) -> TrainConfig:
    """The run's settings, with the dataset's files."""
    files = {f"data.{split}": [str(path) for path in getattr(clicks, split)] for split in SPLITS}
    fixed = {"data.folder": "", "data.prepared": "", "training.output": str(folder), "training.seed": settings.seed}
    return load_config(config, overrides).with_values(**files, **fixed, **{"features.spec": settings.features.spec})


def found(clicks: Clicks, config: TrainConfig) -> dict[str, Any]:
    """What the stages after it depend on: each file's size and time, and the run's settings."""
    files = {path: path.stat() for split in SPLITS for path in getattr(clicks, split)}
    states = {str(path): [state.st_size, state.st_mtime_ns] for path, state in files.items()}
    return {"source": clicks.source, "files": states, "config": config.model_dump(mode="json")}


def trained(config: TrainConfig) -> dict[str, Any]:
    """Trains anew, or goes on with a run of the same settings that did not end."""
    folder = Path(config.training.output)
    if folder.exists() and ((folder / METRICS).exists() or not _same(folder, config)):
        shutil.rmtree(folder)
    result = train_run(config, resume=True)
    return {name: value for name, value in result.items() if name != "history"}


def _same(folder: Path, config: TrainConfig) -> bool:
    return (folder / "config.json").exists() and read_config(folder) == config


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser(__doc__ or "")
    options.add_argument("--config", default=str(CONFIG), help="YAML of the training run")
    options.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that differ from the file's",
    )
    options.add_argument("--again", action="store_true", help="run every stage, up to date or not")

    def step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
        return run_clicks(settings, Path(arguments.config), arguments.set, again=arguments.again)

    run_step("clicks", options, step, argv)


if __name__ == "__main__":
    main()
