"""Embedding tables: one matrix per embedding size, with rows of its own for every vocabulary: one look-up serves many fields.

A row is the embedding of one id and, where first-order weights are read, its weight in one more column. Row 0 stands for
padding in all of them; it is zero and stays zero. Local id k > 0 of an owner (a feature that has a vocabulary of its own) is
the row of its first id plus k - 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from data_exchange_center.vocabulary import PADDING
from offline.models.kernels import look_up
from offline.models.row_table import RowTable

DEVIATION = 0.05  # of a fresh embedding; first-order weights begin at zero


class EmbeddingTables(nn.Module):
    """All tables of a scene.

    Args:
        owners: owner -> (ids, padding included, embedding size).
        first_order: whether every id also has a weight.
    """

    def __init__(self, owners: Mapping[str, tuple[int, int]], *, first_order: bool) -> None:
        super().__init__()
        self.first_order = first_order
        self.owners = dict(owners)
        self._offsets: dict[str, int] = {}
        rows: dict[int, int] = {}
        for name, (ids, size) in self.owners.items():
            self._offsets[name] = rows.get(size, 1) - 1
            rows[size] = rows.get(size, 1) + ids - 1
        self.sizes = nn.ModuleDict({str(size): _table(count, size, first_order) for size, count in rows.items()})

    def rows(self, ids: Tensor, owners: Sequence[str]) -> Tensor:
        """Local ids -> rows of their tables.

        Args:
            ids: int64 [*, F]. owners: one per column, or one for all.
        """
        offsets = [self._offsets[owner] for owner in owners]
        if not any(offsets):
            return ids
        return torch.where(ids > PADDING, ids + torch.tensor(offsets, device=ids.device), PADDING)

    def look_up(self, size: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and first-order weights of rows of the table of one size: [*] -> [*, size], [*, 1] ([*, 0] without)."""
        table = self.sizes[str(size)]
        if not isinstance(table, nn.Embedding):
            found: tuple[Tensor, Tensor] = table.look_up(rows, size)  # type: ignore[operator]
            return found
        weight: Tensor = table.weight
        return look_up(weight, rows, size)

    def learn_by_row(self) -> None:
        """From now on a training step touches the rows that it looks up, and no others; for a sparse optimizer."""
        for size, table in self.sizes.items():
            weight: Tensor = table.weight.detach()  # type: ignore[operator]
            made = RowTable(*weight.shape)
            made.weight.copy_(weight)
            self.sizes[size] = made

    def of(self, owner: str) -> Tensor:
        """An owner's part of its table, without padding: a view [ids - 1, size (+ 1 for weights)]."""
        ids, size = self.owners[owner]
        first = self._offsets[owner] + 1
        weight: Tensor = self.sizes[str(size)].weight  # type: ignore[assignment]
        return weight[first : first + ids - 1]


def _table(rows: int, size: int, first_order: bool) -> nn.Embedding:
    table = nn.Embedding(rows, size + first_order, padding_idx=PADDING)
    with torch.no_grad():
        nn.init.normal_(table.weight, std=DEVIATION)
        table.weight[:, size:] = 0
        table.weight[PADDING] = 0
    return table
