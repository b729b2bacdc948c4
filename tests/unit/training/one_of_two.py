"""One of several processes that torchrun starts: trains each run of `runs`, and keeps what it has become.

torchrun --nproc-per-node 2 tests/unit/training/one_of_two.py <folder of rows> <folder>
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from offline.rank import click_run
from offline.rank.click_run import train_run
from offline.training.config import TrainConfig
from offline.training.distributed import joined
from offline.training.trainer import Trainer
from tests.unit.rank.click_files import files_config

WITHOUT_TARGETS = {"features.select": ["i1", "c1", "c2"]}
SHARDED = {"distributed.tables": "sharded", "optimizer.embeddings.name": "sparse_adagrad", "model.members": 2}
GROWING = {"embeddings.grow": ["c*"], "embeddings.admit_after": 3, "embeddings.evict_after_steps": 2}
STREAMED = {"data.cache": False, "data.shuffle_rows": 250} | WITHOUT_TARGETS
RUNS: dict[str, dict[str, Any]] = {
    "dense": {"optimizer.embeddings.name": "adam", "training.accumulate": 2},
    "by row": {"optimizer.embeddings.name": "sparse_adamw", "training.accumulate": 2},
    "growing": {"optimizer.embeddings.name": "sparse_adamw", "training.accumulate": 2} | GROWING,
    "sharded": SHARDED,
    "streamed growing": {"optimizer.embeddings.name": "sparse_adagrad", "training.batch_size": 110}
    | STREAMED
    | GROWING,
    "streamed sharded": SHARDED | STREAMED | {"training.batch_size": 110},
}
RESUMED = ["sharded", "streamed growing"]  # are trained again, killed after this step
KILLED_AT = 16  # of 11 or 12 steps an epoch and a checkpoint every 5


def config_of(rows: Path, output: Path, name: str) -> TrainConfig:
    """A run that several processes and one alone train; the last batch of an epoch has one row, where it is cached."""
    alike = {
        "training.epochs": 2,
        "training.batch_size": 109,
        "model.options": {"hidden": [8], "fm_size": 4, "dropout": 0.0},
    }
    return files_config(rows, output, **(alike | {"data.prepared": str(rows / "prepared")} | RUNS[name]))


def train_and_keep(config: TrainConfig, folder: Path, *, resume: bool = False) -> None:
    """Trains, and writes this process's weights as they are after the last step."""
    finish = Trainer.train

    def kept(self: Trainer) -> list[dict[str, Any]]:
        history, state = finish(self), self.network.state()
        state = {name: tensor.contiguous() for name, tensor in state.items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / f"weights-{os.environ.get('RANK', 0)}")
        held = sum(p.numel() for name, p in self.ranker.named_parameters() if ".trunk.tables." in name)
        (folder / f"held-{os.environ.get('RANK', 0)}").write_text(str(held))
        return history

    Trainer.train = kept  # type: ignore[method-assign]
    try:
        train_run(config, resume=resume)
    finally:
        Trainer.train = finish  # type: ignore[method-assign]


def kill_and_resume(config: TrainConfig, folder: Path) -> None:
    """Trains up to a step and goes on from the newest checkpoint."""
    step = Trainer._step

    def deadly(self: Trainer, group: list[Any]) -> None:
        step(self, group)
        if self.progress.step == KILLED_AT:
            raise KeyboardInterrupt

    Trainer._step = deadly  # type: ignore[method-assign]
    try:
        train_run(config)
    except KeyboardInterrupt:
        pass
    finally:
        Trainer._step = step  # type: ignore[method-assign]
    train_and_keep(config, folder, resume=True)


def main() -> None:
    rows, folder = Path(sys.argv[1]), Path(sys.argv[2])
    click_run.save_figure = lambda *_: None  # pictures take longer than these runs, and nobody looks at them
    with joined(torch.device("cpu"), timedelta(minutes=2)):
        for name in RUNS:
            train_and_keep(config_of(rows, folder / name, name), folder / name)
        for name in RESUMED:
            killed = folder / f"{name}, killed"
            kill_and_resume(config_of(rows, killed, name), killed)


if __name__ == "__main__":
    main()
