"""Embedding tables: one matrix per embedding size, with rows of its own for every vocabulary: one look-up serves many fields.

A row is the embedding of one id and, where first-order weights are read, its weight in one more column. Row 0 stands for
padding in all of them; it is zero and stays zero. Local id k > 0 of an owner (a feature that has a vocabulary of its own) is
the row of its first id plus k - 1. Owners that grow (`learn_by_row`) are given raw int64 ids instead, whose rows, found as training
sees them, lie behind all others of their table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from data_exchange_center.vocabulary import PADDING, Vocabulary
from offline.models.growing import GrowingIds, GrowthPolicy
from offline.models.initializers import Initializer
from offline.models.kernels import look_up
from offline.models.reserved import rows_that_fit
from offline.models.row_table import RowTable

DEVIATION = 0.05  # of a fresh embedding; first-order weights begin at zero
BYTES_A_VALUE = 16  # that a growing table may take: a weight, its gradient and two moments
BYTES_A_ROW = 64  # the id, twice while its map grows, counters and marks


class EmbeddingTables(nn.Module):
    """All tables of a scene.

    Args:
        owners: owner -> (ids, padding included, embedding size).
        first_order: whether every id also has a weight.

    Attributes:
        first_order: as given; the weight is the last column of a row.
        seen_by_all: where several processes train: the ids of all under each other, and which of these rows are one's own.
    """

    def __init__(self, owners: Mapping[str, tuple[int, int]], *, first_order: bool) -> None:
        super().__init__()
        self.first_order = first_order
        self.initializer = Initializer("normal", DEVIATION, zero_columns=int(first_order))
        self.owners = dict(owners)
        self._offsets: dict[str, int] = {}
        rows: dict[int, int] = {}
        for name, (ids, size) in self.owners.items():
            self._offsets[name] = rows.get(size, 1) - 1
            rows[size] = rows.get(size, 1) + ids - 1
        self.sizes = nn.ModuleDict()
        for size, count in rows.items():
            self.sizes[str(size)] = nn.Embedding(count, size + first_order, padding_idx=PADDING)
            self._fill(str(size))
        self.growing = nn.ModuleDict()  # size -> GrowingIds
        self.seen_by_all: Callable[[Tensor], tuple[Tensor, slice]] | None = None

    def begin(self, initializer: Initializer) -> None:
        """Fills every table anew; fresh rows of growing owners will begin in the same way."""
        self.initializer = replace(initializer, zero_columns=self.initializer.zero_columns)
        for size in self.sizes:
            self._fill(size)

    def _fill(self, size: str) -> None:
        weight: Tensor = self.sizes[size].weight.detach()  # type: ignore[operator]
        self.initializer.fill(weight)
        weight[PADDING] = 0

    def grows(self, owner: str) -> bool:
        """Whether an owner's ids are raw ones."""
        return any(owner in growing.policies for growing in self.growing.values())  # type: ignore[operator]

    def rows(self, ids: Tensor, owners: Sequence[str]) -> Tensor:
        """Local ids, and raw ones of owners that grow, -> rows of their tables.

        Args:
            ids: int64 [*, F]. owners: one per column, or one for all.
        """
        if self.growing and self.training and self.seen_by_all is not None:
            everyone, own = self.seen_by_all(ids)
            return self._rows(everyone, owners)[own]
        return self._rows(ids, owners)

    def _rows(self, ids: Tensor, owners: Sequence[str]) -> Tensor:
        offsets = [self._offsets[owner] for owner in owners]
        if not any(offsets) and not self.growing:
            return ids
        rows = torch.where(ids > PADDING, ids + torch.tensor(offsets, device=ids.device), PADDING)
        for place, owner in enumerate(owners if self.growing else ()):
            if self.grows(owner):
                column = slice(None) if len(owners) == 1 else slice(place, place + 1)
                growing = self.growing[str(self.owners[owner][1])]
                rows[..., column] = growing.rows(owner, ids[..., column].contiguous())  # type: ignore[operator]
        return rows

    def look_up(self, size: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and first-order weights of rows of the table of one size: [*] -> [*, size], [*, 1] ([*, 0] without)."""
        table = self.sizes[str(size)]
        if not isinstance(table, nn.Embedding):
            found: tuple[Tensor, Tensor] = table.look_up(rows, size)  # type: ignore[operator]
            return found
        weight: Tensor = table.weight
        return look_up(weight, rows, size)

    def learn_by_row(
        self, growing: Mapping[str, GrowthPolicy] | None = None, *, most_rows: int = 0, seed: int = 0
    ) -> None:
        """From now on a training step touches the rows that it looks up, and no others; for a sparse optimizer.

        Args:
            growing: owner -> how its ids come to own rows; `rows` takes raw ids of these owners from now on.
            most_rows: that the ids of one table may own; 0: as many as the machine's memory holds.
            seed: of fresh rows.
        """
        for size, table in self.sizes.items():
            weight: Tensor = table.weight.detach()  # type: ignore[operator]
            policies = {
                name: policy
                for name, policy in (growing or {}).items()
                if name in self.owners and str(self.owners[name][1]) == size
            }
            count, width = weight.shape
            limit = count + (most_rows or rows_that_fit(BYTES_A_VALUE * width + BYTES_A_ROW)) if policies else count
            made = RowTable(count, width, limit=limit, initializer=self.initializer, seed=seed)
            made.weight.copy_(weight)
            self.sizes[size] = made
            if policies:
                unknown = {name: self._offsets[name] + 1 for name in policies}
                self.growing[size] = GrowingIds(made, policies, unknown)

    def frozen(self) -> tuple[dict[str, Vocabulary], dict[str, Tensor]]:
        """The tables as they are for ids of fixed vocabularies.

        Returns:
            Vocabularies of the owners that grew, and `size -> weight` of the tables of an EmbeddingTables with those.
        """
        vocabularies = dict[str, Vocabulary]()
        parts: dict[str, list[Tensor]] = {
            size: [table.weight[: PADDING + 1]]  # type: ignore[index]
            for size, table in self.sizes.items()
        }
        for name, (_, size) in self.owners.items():
            if self.grows(name):
                vocabularies[name], rows = self.growing[str(size)].frozen(name)  # type: ignore[operator]
                parts[str(size)].append(rows[PADDING + 1 :])
            else:
                parts[str(size)].append(self.of(name))
        return vocabularies, {size: torch.cat(found).detach() for size, found in parts.items()}

    def of(self, owner: str) -> Tensor:
        """An owner's part of its table, without padding: a view [ids - 1, size (+ 1 for weights)]."""
        ids, size = self.owners[owner]
        first = self.first_row(owner)
        weight: Tensor = self.sizes[str(size)].weight  # type: ignore[assignment]
        return weight[first : first + ids - 1]

    def first_row(self, owner: str) -> int:
        """Row of an owner's id 1 in its table; the others follow."""
        return self._offsets[owner] + 1
