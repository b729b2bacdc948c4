"""An embedding table whose training costs what a step looks up, however many rows the table has.

    forward     rows are copied out of the table, [*] -> [*, width]
    backward    gradients are summed per distinct row, [u, width]; nothing of the table's size is made
    step        a sparse optimizer (offline/training/sparse_optimizers.py) reads `touched()` and changes those rows in place

The rows are no parameter: optimizers, gradient clipping and DistributedDataParallel, which walk over `parameters()`, would make
something of the table's size. They live in the CPU's memory, also when the network is on a GPU, to which what is looked up moves.
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
from offline.models.kernels import add_rows, look_up_collecting
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
        self.rows = self._born = rows
        self.storage = reserve(self.limit, width, torch.float32)
        self.companions: dict[str, Tensor] = {}
        self._marks = reserve(self.limit, 1, torch.int64)[:, 0].numpy()
        self._moment = 0
        self._pending: list[Touched] = []
        self._anchor = torch.zeros((), requires_grad=True)  # what a look-up depends on for autograd
        self.initializer.fill(self.weight, self.generator)
        self.weight[PADDING] = 0

    @property
    def weight(self) -> Tensor:
        """The rows that exist, a view [rows, width]."""
        return self.storage[: self.rows]

    def forward(self, rows: Tensor) -> Tensor:
        """[*] -> [*, width], on the device of `rows`."""
        return self.look_up(rows, self.width)[0]

    def look_up(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The first `size` columns and the others, [*] -> [*, size], [*, width - size], on the device of `rows`."""
        places = rows.cpu()
        if self.training and torch.is_grad_enabled():
            found = look_up_collecting(self._anchor, self.storage, places, size, self._collect)
        else:
            found = functional.embedding(places, self.weight).split([size, self.width - size], -1)
        return found[0].to(rows.device), found[1].to(rows.device)

    def _collect(self, rows: Tensor, vectors: Tensor, rest: Tensor) -> None:
        distinct, places, padding = self.distinct(rows)
        gradients = torch.zeros(len(distinct), self.width)
        add_rows(places, vectors, rest, gradients, skipped=padding)
        self._pending.append(Touched(distinct, gradients))

    def distinct(self, rows: Tensor) -> tuple[Tensor, Tensor, int]:
        """Distinct rows in order of first appearance, the place of each given row among them, and the place of padding or -1."""
        self._moment += 1
        distinct, places = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        count, padding = _distinct(rows.numpy(), self._marks, self._moment, distinct, places)
        return torch.from_numpy(distinct[:count]), torch.from_numpy(places), padding

    def touched(self) -> Touched | None:
        """Rows that were looked up since `clear` and their summed gradients; None when there was no backward pass."""
        if len(self._pending) > 1:
            self.take(self.summed(*(torch.cat(parts) for parts in zip(*self._pending, strict=True))))
        return self._pending[0] if self._pending else None

    def take(self, touched: Touched) -> None:
        """Replaces what was looked up."""
        self._pending = [touched]

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
        if (
            self.limit > self._born
        ):  # a table that does not grow draws nothing any more, and is saved as nn.Embedding would be
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
