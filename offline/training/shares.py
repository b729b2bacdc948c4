"""Which rows each of several processes learns from, when an epoch is read in batches of all.

    SharedBatches   every process reads every batch and keeps its part: for readers that know nothing of processes
    OwnBatches      every process reads rows of its own, as RowReader gives them by rank and world size

Cached rows need neither: an epoch's order is known, and each process looks up its own part of each batch
(offline/training/ctr_data.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from data_exchange_center.errors import DataError
from offline.models.layers import Sides
from offline.training.batches import BatchSource
from offline.training.dataset import LikeBatch
from offline.training.distributed import Processes


class SharedBatches:
    """This process's part of each batch of a source that all processes read alike; its position is one for all."""

    def __init__(self, source: BatchSource, processes: Processes) -> None:
        self.source, self.processes = source, processes

    def __iter__(self) -> Iterator[LikeBatch]:
        for batch in self.source:
            yield part_of(batch, self.processes.part(len(batch.labels)))

    def state(self) -> dict[str, Any]:
        """The source's."""
        return self.source.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where all were."""
        self.source.restore(state)


class OwnBatches:
    """Batches of a source that gives each process other rows; who has none left goes on with empty ones until all are done.

    Args:
        source: this process's rows.
        processes: all of which iterate, and ask for the state, at the same time.
        nothing: an empty batch.
    """

    def __init__(self, source: BatchSource, processes: Processes, nothing: Callable[[], LikeBatch]) -> None:
        self.source, self.processes, self.nothing = source, processes, nothing

    def __iter__(self) -> Iterator[LikeBatch]:
        batches = iter(self.source)
        while True:
            batch = next(batches, None)
            if not self.processes.total(torch.tensor(int(batch is not None))):
                return
            yield batch if batch is not None else self.nothing()

    def state(self) -> dict[str, Any]:
        """The positions of all processes, by rank."""
        own = torch.frombuffer(bytearray(json.dumps(self.source.state()).encode()), dtype=torch.uint8)
        return {"processes": [json.loads(bytes(text.tolist())) for text in self.processes.gathered(own)]}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where this process was.

        Raises:
            DataError: the state is of another number of processes.
        """
        positions = state.get("processes")
        if not isinstance(positions, list) or len(positions) != self.processes.count:
            before = len(positions) if isinstance(positions, list) else 1
            raise DataError(
                f"the checkpoint lies within an epoch that {before} processes read, each its own rows; resume with as many, "
                f"not {self.processes.count}"
            )
        self.source.restore(positions[self.processes.rank])


def part_of(batch: LikeBatch, rows: slice) -> LikeBatch:
    """Some rows of a batch."""
    total = len(batch.labels)

    def cut(tensor: Tensor) -> Tensor:
        return tensor[rows] if len(tensor) == total else tensor  # the empty side of a scene without users has one row

    inputs = {name: cut(tensor) for name, tensor in batch.inputs.items()}
    return LikeBatch(inputs, Sides(*map(cut, batch.numbers)), batch.labels[rows])
