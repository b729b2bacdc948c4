"""What a trainer takes its rows from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch

from offline.models.layers import Sides
from offline.training.dataset import LikeBatch


class BatchSource(Protocol):
    """One epoch of batches whose position can be kept and gone back to."""

    def __iter__(self) -> Iterator[LikeBatch]: ...

    def state(self) -> dict[str, Any]:
        """JSON values: the position after the last batch that was handed out."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a position; the next batch is the one that would have followed."""
        ...


Epochs = Callable[[int], BatchSource]
"""Epoch (from 1) -> its batches; the same epoch gives the same batches in the same order."""


def grouped(batches: Iterable[LikeBatch], size: int) -> Iterator[list[LikeBatch]]:
    """`size` batches at a time; the last group may be smaller."""
    group: list[LikeBatch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def moved(batch: LikeBatch, device: torch.device) -> LikeBatch:
    """The batch on a device; as it is when it lies there."""
    if device == batch.labels.device:
        return batch
    return LikeBatch(
        {name: tensor.to(device, non_blocking=True) for name, tensor in batch.inputs.items()},
        Sides(*(side.to(device, non_blocking=True) for side in batch.numbers)),
        batch.labels.to(device, non_blocking=True),
    )
