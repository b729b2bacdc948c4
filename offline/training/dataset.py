"""Training data as tensors: encoded once, batched by indexing, no Python per row.

Two shapes. `LikeRows`: one row per exposed item, both sides [R, ...]. `ChooseLists`: one list of candidates per user, users
[U, ...] and items [I, ...] stored once and gathered per batch, so that a list of 300 candidates does not repeat its user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import atomic_path
from offline.models.layers import Sides

FIT, VALIDATE, JUDGE = 0, 1, 2  # parts of the rows of a fit
Inputs = dict[str, Tensor]


class LikeBatch(NamedTuple):
    """inputs [B, ...]; numbers ([B, n], [B, m]); labels float32 [B]."""

    inputs: Inputs
    numbers: Sides
    labels: Tensor


class ChooseBatch(NamedTuple):
    """inputs [B, 1, ...] and [B, N, ...]; numbers ([B, 1, n], [B, N, m]); labels float32 [B, N]; mask bool [B, N]."""

    inputs: Inputs
    numbers: Sides
    labels: Tensor
    mask: Tensor


@dataclass(frozen=True)
class LikeRows:
    """Exposed rows.

    Attributes:
        inputs: `encoded.<f>` ids and `raw.<f>` weights, [R, ...].
        numbers: normalised, ([R, n], [R, m]).
        labels: float32 [R]. users: int64 [R]. parts: uint8 [R], FIT, VALIDATE or JUDGE.
    """

    inputs: Inputs
    numbers: Sides
    labels: Tensor
    users: Tensor
    parts: Tensor

    def rows(self, *parts: int) -> Tensor:
        """Places of the rows of these parts."""
        return torch.isin(self.parts, torch.tensor(parts, dtype=self.parts.dtype)).nonzero().squeeze(1)

    def batch(self, rows: Tensor) -> LikeBatch:
        """Some rows."""
        inputs = {name: _ids(tensor[rows]) for name, tensor in self.inputs.items()}
        return LikeBatch(inputs, Sides(self.numbers.user[rows], self.numbers.item[rows]), self.labels[rows])

    def take(self, places: Tensor) -> LikeRows:
        """Some of the rows, in the order of `places`."""
        return LikeRows(
            {name: tensor[places] for name, tensor in self.inputs.items()},
            Sides(self.numbers.user[places], self.numbers.item[places]),
            self.labels[places],
            self.users[places],
            self.parts[places],
        )

    def joined(self, other: LikeRows) -> LikeRows:
        """These rows and then the other's, which were encoded alike."""
        return LikeRows(
            {name: torch.cat([tensor, other.inputs[name]]) for name, tensor in self.inputs.items()},
            Sides(*(torch.cat(pair) for pair in zip(self.numbers, other.numbers, strict=True))),
            torch.cat([self.labels, other.labels]),
            torch.cat([self.users, other.users]),
            torch.cat([self.parts, other.parts]),
        )

    def save(self, path: Path) -> None:
        """Writes one safetensors file atomically."""
        _save(
            path,
            {
                **{f"input.{name}": tensor for name, tensor in self.inputs.items()},
                "numbers.user": self.numbers.user,
                "numbers.item": self.numbers.item,
                "labels": self.labels,
                "users": self.users,
                "parts": self.parts,
            },
        )

    @classmethod
    def load(cls, path: Path) -> LikeRows:
        """Reads what `save` wrote; DataError names a file that is missing or broken."""
        content = _load(path)
        return cls(
            _starting(content, "input."),
            Sides(content["numbers.user"], content["numbers.item"]),
            content["labels"],
            content["users"],
            content["parts"],
        )


@dataclass(frozen=True)
class ChooseLists:
    """Lists of candidates of one cut.

    Attributes:
        user_inputs: [U, ...]. item_inputs: [I, ...].
        candidates: int64 [U, N], places in the item inputs; -1 where a list is shorter.
        numbers: normalised, ([U, n], [U, N, m]).
        labels: uint8 [U, N], 1 for what the user chose next.
    """

    user_inputs: Inputs
    item_inputs: Inputs
    candidates: Tensor
    numbers: Sides
    labels: Tensor

    def __len__(self) -> int:
        return len(self.candidates)

    def batch(self, users: Tensor, unchosen: int = 0) -> ChooseBatch:
        """The lists of some users.

        Args:
            users: places.
            unchosen: when positive, only the chosen candidates and that many others, drawn anew on every call.
        """
        candidates, labels, numbers = self.candidates[users], self.labels[users].float(), self.numbers.item[users]
        if 0 < unchosen < candidates.shape[1]:
            keep = (torch.rand(labels.shape) + 2 * labels - 2.0 * (candidates < 0)).topk(unchosen, dim=1).indices
            candidates, labels = candidates.gather(1, keep), labels.gather(1, keep)
            numbers = numbers.gather(1, keep.unsqueeze(-1).expand(-1, -1, numbers.shape[-1]))
        inputs = {name: _ids(tensor[users].unsqueeze(1)) for name, tensor in self.user_inputs.items()}
        place = candidates.clamp(min=0)
        inputs |= {name: _ids(tensor[place]) for name, tensor in self.item_inputs.items()}
        sides = Sides(self.numbers.user[users].unsqueeze(1), numbers)
        return ChooseBatch(inputs, sides, labels, candidates >= 0)

    def save(self, path: Path) -> None:
        """Writes one safetensors file atomically."""
        _save(
            path,
            {
                **{f"user.{name}": tensor for name, tensor in self.user_inputs.items()},
                **{f"item.{name}": tensor for name, tensor in self.item_inputs.items()},
                "candidates": self.candidates,
                "numbers.user": self.numbers.user,
                "numbers.item": self.numbers.item,
                "labels": self.labels,
            },
        )

    @classmethod
    def load(cls, path: Path) -> ChooseLists:
        """Reads what `save` wrote; DataError names a file that is missing or broken."""
        content = _load(path)
        return cls(
            _starting(content, "user."),
            _starting(content, "item."),
            content["candidates"],
            Sides(content["numbers.user"], content["numbers.item"]),
            content["labels"],
        )


def shuffled(rows: Tensor, size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Rows in random order, in batches of `size`; the last one may be smaller."""
    return rows[torch.randperm(len(rows), generator=generator)].split(size)


def _ids(tensor: Tensor) -> Tensor:
    """Ids are kept as int32, which halves them, and looked up as int64."""
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def _load(path: Path) -> Inputs:
    if not path.exists():
        raise DataError(f"{path}: not there; run offline/rank/s1_feature_engi.py first")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file: {error}") from error


def _starting(content: Mapping[str, Tensor], prefix: str) -> Inputs:
    return {name.removeprefix(prefix): tensor for name, tensor in content.items() if name.startswith(prefix)}
