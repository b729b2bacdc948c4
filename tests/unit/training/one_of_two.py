"""One of several processes that torchrun starts: trains the small click ranker and writes what it has become.

torchrun --nproc-per-node 2 tests/unit/training/one_of_two.py <folder> <optimizer of embeddings>
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from offline.models.ranker import Ranker
from offline.training.distributed import ALONE, Processes, joined
from tests.unit.training.clicks import click_config, click_ranker, click_trainer


def train(
    folder: Path, embeddings: str, processes: Processes = ALONE, *, resume: bool = False, epochs: int = 3
) -> Ranker:
    """The network after training."""
    settings = {"optimizer.embeddings.name": embeddings, "optimizer.embeddings.learning_rate": 0.01}
    config = click_config(folder, **{"training.epochs": epochs, "training.accumulate": 2, **settings})
    ranker = click_ranker(dropout=0.0)
    ranker.member(0).trunk.unknown_rate = 0.0
    if config.optimizer.embeddings.sparse:
        ranker.member(0).trunk.tables.learn_by_row()
    trainer = click_trainer(config, ranker, processes=processes)
    if resume:
        trainer.resume()
    history = trainer.train()
    (folder / f"history-{processes.rank}.json").write_text(json.dumps(history))
    return ranker


def main() -> None:
    folder = Path(sys.argv[1])
    with joined(torch.device("cpu")) as processes:
        ranker = train(folder, sys.argv[2], processes)
        save_file({k: v.contiguous() for k, v in ranker.state_dict().items()}, folder / f"weights-{processes.rank}")


if __name__ == "__main__":
    main()
