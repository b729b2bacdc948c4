"""A run over rows in memory, small enough for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from data_exchange_center.validation import validated
from offline.models.layers import Sides
from offline.models.ranker import Ranker, config_for
from offline.training.config import TrainConfig
from offline.training.dataset import LikeBatch
from offline.training.distributed import ALONE
from offline.training.shares import SharedBatches
from offline.training.trainer import Trainer
from tests.unit.models.tiny_scene import clicks_encoder, clicks_rows

ROWS, BATCH = 600, 50


class MemoryBatches:
    """Encoded rows in a random order of their own for every epoch."""

    def __init__(self, rows: LikeBatch, batch_size: int, epoch: int, order: bool = False) -> None:
        self.rows, self.batch_size, self.done = rows, batch_size, 0
        count = len(rows.labels)
        generator = torch.Generator().manual_seed(epoch)
        self.order = torch.arange(count) if order else torch.randperm(count, generator=generator)

    def __iter__(self) -> Iterator[LikeBatch]:
        batches = self.order.split(self.batch_size)
        while self.done < len(batches):
            taken = batches[self.done]
            self.done += 1
            inputs = {name: tensor[taken] for name, tensor in self.rows.inputs.items()}
            yield LikeBatch(
                inputs, Sides(self.rows.numbers.user, self.rows.numbers.item[taken]), self.rows.labels[taken]
            )

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


def click_batch(rows: int = ROWS) -> LikeBatch:
    """Rows that are clicked when c1 is 10, with noise; c2 and the numbers say nothing."""
    encoder = clicks_encoder(True)
    raw = clicks_rows(encoder, rows)
    encoded = {name: torch.from_numpy(array) for name, array in encoder.encode(raw).items()}
    number = encoded.pop("encoded.i2")[:, None]
    chance = torch.from_numpy(raw["c1"] == 10).float() * 0.7 + 0.1
    labels = (torch.rand(rows, generator=torch.Generator().manual_seed(3)) < chance).float()
    return LikeBatch(encoded, Sides(torch.zeros(1, 0), number), labels)


def click_config(folder: Path, **values: Any) -> TrainConfig:
    """Small batches, frequent checkpoints."""
    tree = {"data": {"train": ["memory"]}, "training": {"output": str(folder), "batch_size": BATCH}}
    defaults = {"training.epochs": 3, "training.save_every": 5, "training.log_every": 3}
    return validated(TrainConfig, tree, "test").with_values(**(defaults | values))


def click_ranker(members: int = 1, dropout: float = 0.2) -> Ranker:
    """The same weights on every call."""
    torch.manual_seed(0)
    encoder = clicks_encoder(True)
    options = {"fm_size": 4, "hidden": (8,), "dropout": dropout}
    config = config_for("deepfm", "default", encoder.rows, members, encoder.id_types, ("like",), **options)
    return Ranker(encoder.spec, config)


def click_trainer(config: TrainConfig, ranker: Ranker | None = None, **options: Any) -> Trainer:
    """A trainer over the rows of `click_batch`."""
    rows = click_batch()
    batch_size = config.training.batch_size
    steps = config.training.epochs * -(-ROWS // batch_size // config.training.accumulate)
    folder, processes = Path(config.training.output), options.get("processes", ALONE)
    return Trainer(
        ranker or click_ranker(),
        config,
        lambda epoch: SharedBatches(MemoryBatches(rows, batch_size, epoch), processes),
        folder,
        steps=steps,
        **options,
    )
