"""Optimizer and learning rate of every fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from offline.models.row_table import RowTable
from offline.training.config import OptimizerConfig
from offline.training.sparse_optimizers import SparseAdagrad, SparseAdamW, SparseOptimizer

OTHER_DECAY = 1e-5  # of everything that is no embedding
WARM_UP = 50  # steps, and at most a tenth of the longest training
FLOOR = 0.05  # of the learning rate, at the end


def adam(
    tables: Iterable[nn.Parameter], others: Iterable[nn.Parameter], rate: float, table_decay: float
) -> torch.optim.Adam:
    """Adam with L2 decay that is strong on embeddings: most ids have few rows, and what those say must not be memorised."""
    groups = [
        {"params": list(tables), "weight_decay": table_decay},
        {"params": list(others), "weight_decay": OTHER_DECAY},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=rate)


def optimizer_of(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer that a run's settings name; one kernel updates a whole tensor."""
    chosen, rate = list(parameters), config.learning_rate
    if config.name == "sgd":
        return torch.optim.SGD(chosen, rate, momentum=config.momentum, weight_decay=config.reg, fused=True)
    if config.name == "adam":
        return torch.optim.Adam(chosen, rate, weight_decay=config.reg, fused=True)
    if config.name == "adamw":
        return torch.optim.AdamW(chosen, rate, weight_decay=config.weight_decay, fused=True)
    return torch.optim.Adagrad(chosen, rate, weight_decay=config.reg, fused=True)


def with_own_decay_of_last_column(
    optimizer: torch.optim.Optimizer, tables: Sequence[nn.Parameter], reg: float, own: float
) -> None:
    """From the next step on the last column of these tables has an L2 of its own.

    A first-order weight says what an id is worth alone and needs far less of it than the factors of the same row, which learn
    the id's rare meetings with others (libFM has the two as `-regular`).

    Args:
        optimizer: of the tables, which adds `reg` to all of a gradient. own: the L2 of their last column instead.
    """

    def add(*_: Any) -> None:
        for table in tables:
            if table.grad is not None:
                table.grad[:, -1].add_(table.detach()[:, -1], alpha=own - reg)

    optimizer.register_step_pre_hook(add)


def sparse_optimizer_of(tables: Sequence[RowTable], config: OptimizerConfig) -> SparseOptimizer:
    """The optimizer of looked-up rows that a run's settings name."""
    if config.name == "sparse_adamw":
        return SparseAdamW(tables, config.learning_rate, weight_decay=config.weight_decay)
    return SparseAdagrad(tables, config.learning_rate, weight_decay=config.reg)


def rate_at(step: int, steps: int) -> float:
    """Factor of the learning rate: a short warm-up, then half a cosine down to FLOOR.

    Args:
        step: from 0. steps: of the longest training that could be; stopping early keeps the same schedule.
    """
    warm = min(1.0, (step + 1) / max(min(WARM_UP, steps / 10), 1))
    return warm * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))))
