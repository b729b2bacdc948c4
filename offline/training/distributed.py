"""Training by several processes that torchrun starts, each on its share of every batch; the result is that of one process.

    torchrun --nproc-per-node 2 offline/rank/train.py --config docs/examples/criteo.yaml

Every process holds the whole network and takes its part of each batch, so that a step learns from the same rows as a single
process would. Gradients are weighted by rows and added up over the processes, dense ones in one exchange and those of looked-up
rows as rows, and all take the same step: weights are equal on all processes to the last bit, and equal to those of one process up
to the order of additions in float32 (tests: losses within 1e-5, weights within 1e-4 after several epochs; dropout draws differ).
The first process writes files. Processes talk by gloo on CPUs and by NCCL on GPUs.

DistributedDataParallel is not used: it wraps one module's forward, while members and heads are called one by one here, and it
knows nothing of tables whose rows are no parameters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from offline.models.row_table import RowTable, Touched


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them; alone by default."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.count > 1:
            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process runs the block before all others do, which then find what it has written."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:  # not after an error: torchrun ends the others
            self.wait()

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the tensor itself stays as it is."""
        if self.count == 1:
            return value
        summed = value.clone()
        distributed.all_reduce(summed)
        return summed

    def part(self, rows: int) -> slice:
        """Which of so many rows are this process's: neighbouring ones, as many as the others have or one more or less."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces each gradient by its sum over all processes; a parameter that has none anywhere keeps none."""
        if self.count == 1 or not parameters:
            return
        there = torch.tensor([float(one.grad is not None) for one in parameters], device=parameters[0].device)
        flat = torch.cat([there, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
        distributed.all_reduce(flat)
        there, *parts = flat.split([len(parameters), *(one.numel() for one in parameters)])
        for parameter, known, part in zip(parameters, there.tolist(), parts, strict=True):
            if known:
                parameter.grad = part.view_as(parameter)

    def add_up_rows(self, table: RowTable) -> None:
        """The same for the rows of a table that any process has looked up; all processes have seen the same rows afterwards."""
        if self.count == 1:
            return
        own = table.touched() or Touched(torch.zeros(0, dtype=torch.int64), torch.zeros(0, table.width))
        table.take(table.summed(torch.cat(self.gathered(own.rows)), torch.cat(self.gathered(own.gradients))))

    def gathered(self, own: Tensor) -> list[Tensor]:
        """Tensors of all processes, in the order of their ranks; they may differ in length, [n, ...] each."""
        if self.count == 1:
            return [own]
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        distributed.all_gather(lengths, torch.tensor([len(own)]))
        longest = int(max(lengths))
        padded = own.new_zeros(longest, *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(parts, padded)
        return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]

    def side_by_side(self, own: Tensor) -> tuple[Tensor, slice]:
        """Tensors [n, ...] of all processes under each other, in the order of their ranks, and which rows are one's own."""
        parts = self.gathered(own)
        first = sum(map(len, parts[: self.rank]))
        return torch.cat(parts), slice(first, first + len(own))


ALONE = Processes()


def place() -> Processes:
    """This process's place among those that torchrun started; ALONE when it did not."""
    return Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


@contextmanager
def joined(device: torch.device, patience: timedelta = timedelta(minutes=30)) -> Iterator[Processes]:
    """Joins the processes that torchrun started for as long as the block runs; one on a GPU uses that of its local rank.

    Within such a block nothing is joined again: a process that comes back before the others have left would wait for ever.

    Args:
        patience: how long one waits for another that neither comes nor ends.
    """
    processes = place()
    if "RANK" not in os.environ:
        yield ALONE
        return
    if distributed.is_initialized():
        yield processes
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield processes
    finally:
        distributed.destroy_process_group()


@contextmanager
def one_voice() -> Iterator[None]:
    """Only the first process prints to stdout, so that it ends with one JSON object."""
    if place().is_first:
        yield
        return
    before = sys.stdout
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = nowhere
        try:
            yield
        finally:
            sys.stdout = before
