"""An embedding table whose training costs what a step looks up, however many rows the table has.

    forward     the batch's distinct rows are gathered into a small leaf, from which every occurrence is copied, [u, d] -> [*, d]
    backward    gradients are summed into the leaf's, [u, d]; nothing of the table's size is made
    step        a sparse optimizer (offline/training/sparse_optimizers.py) reads `touched()` and changes those rows in place

The rows are no parameter: optimizers, gradient clipping and DistributedDataParallel, which walk over `parameters()`, would make
something of the table's size. They live in the CPU's memory, also when the network is on a GPU, to which the leaf is moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.nn import functional

from data_exchange_center.errors import DataError
from data_exchange_center.vocabulary import PADDING
from offline.models.initializers import Initializer
from offline.models.reserved import reserve


class Touched(NamedTuple):
    """rows int64 [u], distinct; gradients float32 [u, width]."""

    rows: Tensor
    gradients: Tensor


class RowTable(nn.Module):
    """Rows 0 (padding, zero for ever) to `rows` - 1.

    Args:
        rows: at the beginning.
        width: of a row.
        limit: rows that it may grow to; memory is taken for those that exist only.
        initializer: of fresh rows.
        seed: of the initializer's random numbers, which are drawn row by row in the order in which rows come.
    """

    def __init__(
        self, rows: int, width: int, *, limit: int = 0, initializer: Initializer | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.width, self.limit = width, max(rows, limit)
        self.initializer = initializer or Initializer()
        self.generator = torch.Generator().manual_seed(seed)
        self.rows = rows
        self.storage = reserve(self.limit, width, torch.float32)
        self.companions: dict[str, Tensor] = {}
        self._marks = reserve(self.limit, 1, torch.int64)[:, 0].numpy()
        self._moment = 0
        self._pending: list[tuple[Tensor, Tensor]] = []
        self.initializer.fill(self.weight, self.generator)
        self.weight[PADDING] = 0

    @property
    def weight(self) -> Tensor:
        """The rows that exist, a view [rows, width]."""
        return self.storage[: self.rows]

    def forward(self, rows: Tensor) -> Tensor:
        """[*] -> [*, width], on the device of `rows`."""
        flat = rows.reshape(-1)
        if not (self.training and torch.is_grad_enabled()):
            return functional.embedding(flat.cpu(), self.weight).to(rows.device).view(*rows.shape, self.width)
        distinct, places, padding = self.distinct(flat.cpu())
        leaf = self.storage.index_select(0, distinct).to(rows.device).requires_grad_()
        self._pending.append((distinct, leaf))
        found = functional.embedding(places.to(rows.device), leaf, padding_idx=padding)
        return found.view(*rows.shape, self.width)

    def distinct(self, rows: Tensor) -> tuple[Tensor, Tensor, int | None]:
        """Distinct rows in order of first appearance, the place of each given row among them, and the place of padding."""
        self._moment += 1
        distinct, places = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        count, padding = _distinct(rows.numpy(), self._marks, self._moment, distinct, places)
        return torch.from_numpy(distinct[:count]), torch.from_numpy(places), padding if padding >= 0 else None

    def touched(self) -> Touched | None:
        """Rows that were looked up since `clear` and their summed gradients; None when there was no backward pass."""
        done = [(rows, leaf.grad.cpu()) for rows, leaf in self._pending if leaf.grad is not None]
        if len(done) < 2:
            return Touched(*done[0]) if done else None
        return self.summed(torch.cat([rows for rows, _ in done]), torch.cat([gradients for _, gradients in done]))

    def summed(self, rows: Tensor, gradients: Tensor) -> Touched:
        """Gradients of rows that may repeat, summed per row, in order."""
        distinct, places, _ = self.distinct(rows)
        return Touched(distinct, torch.zeros(len(distinct), self.width).index_add_(0, places, gradients))

    def clear(self) -> None:
        """Forgets what was looked up."""
        self._pending.clear()

    def companion(self, name: str, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Zeros [limit, width] that belong to the rows, such as an optimizer's state; a row that begins anew has zeros again."""
        if name not in self.companions:
            self.companions[name] = reserve(self.limit, width, dtype)
        return self.companions[name]

    def begin(self, rows: Tensor) -> None:
        """Makes these rows (int64, distinct) fresh: newly initialised, companions zero. New ones extend the table."""
        if not len(rows):
            return
        used, self.rows = self.rows, max(self.rows, int(rows.max()) + 1)
        fresh = torch.empty(len(rows), self.width)
        self.initializer.fill(fresh, self.generator)
        self.storage.index_copy_(0, rows, fresh)
        again = rows[rows < used]
        for companion in self.companions.values():
            companion.index_fill_(0, again, 0)

    def extra_repr(self) -> str:
        return f"rows={self.rows}, width={self.width}, limit={self.limit}"

    def __deepcopy__(self, memo: dict[int, Any]) -> RowTable:
        made = RowTable(1, self.width, limit=self.limit, initializer=self.initializer)
        made.load_state_dict(self.state_dict())
        for name, companion in self.companions.items():
            made.companion(name, companion.shape[1], companion.dtype)[: self.rows] = companion[: self.rows]
        return made.train(self.training)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight
        destination[prefix + "generator"] = self.generator.get_state()

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        weight, generator = state_dict.get(prefix + "weight"), state_dict.get(prefix + "generator")
        if weight is None:
            raise DataError(f"the weights hold no {prefix}weight")
        if weight.dim() != 2 or weight.shape[1] != self.width or len(weight) > self.limit:
            raise DataError(f"{prefix}weight is {list(weight.shape)}; a table of {self} cannot hold it")
        self.rows = len(weight)
        self.weight.copy_(weight)
        if generator is not None:
            self.generator.set_state(generator)
        self.clear()


@njit(cache=True)
def _distinct(rows, marks, moment, distinct, places):  # type: ignore[no-untyped-def]
    """A mark says when its row was last met (upper half) and at which place (lower half), so that nothing is sorted or cleared."""
    count, padding = 0, -1
    for index in range(len(rows)):
        row = rows[index]
        mark = marks[row]
        if mark >> 32 != moment:
            mark = (moment << 32) | count
            marks[row] = mark
            distinct[count] = row
            if row == PADDING:
                padding = count
            count += 1
        places[index] = mark & 0xFFFFFFFF
    return count, padding
