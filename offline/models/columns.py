"""Named columns of a few matrices, taken together without one operation per column."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor


class Columns:
    """Columns [*] of matrices [*, n], by name.

    Example:
        columns = Columns()
        columns.add(["a", "b"], torch.zeros(5, 2))
        columns.take(["b", "a"])  # [5, 2]
    """

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._places: dict[str, tuple[int, int]] = {}

    @property
    def names(self) -> list[str]:
        """What is known."""
        return list(self._places)

    def add(self, names: Sequence[str], block: Tensor) -> None:
        """Makes the columns of a matrix [*, len(names)] known; a name that is known already means the new column from now on."""
        self._places |= {name: (len(self._blocks), column) for column, name in enumerate(names)}
        self._blocks.append(block)

    def updated(self, other: Columns) -> Columns:
        """Both together; where both know a name, the other's column."""
        made = Columns()
        made._blocks = [*self._blocks, *other._blocks]
        made._places = self._places | {
            name: (len(self._blocks) + block, column) for name, (block, column) in other._places.items()
        }
        return made

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Tensor:
        """One column, [*]."""
        block, column = self._places[name]
        return self._blocks[block][..., column]

    def take(self, names: Sequence[str]) -> Tensor:
        """Columns side by side: [*, len(names)], but [*, 1] when all are the same one; [1, 0] of no names."""
        if not names:
            return torch.zeros(1, 0)
        places = [self._places[name] for name in names]
        if len(set(places)) == 1:
            places = places[:1]
        runs = [(block, [column for _, column in run]) for block, run in groupby(places, key=lambda place: place[0])]
        parts = [taken(self._blocks[block], columns) for block, columns in runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def taken(block: Tensor, columns: list[int]) -> Tensor:
    """Columns of a matrix by their places: the matrix itself or a view of it where they follow each other."""
    if columns == list(range(block.shape[-1])):
        return block
    if columns == list(range(columns[0], columns[0] + len(columns))):
        return block.narrow(-1, columns[0], len(columns))
    return block.index_select(-1, torch.tensor(columns, device=block.device))
