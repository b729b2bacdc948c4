"""Layers that several architectures share. Shapes use [*u] and [*i] for the leading dimensions of the user's and the item's side.

Both sides broadcast against each other: [B] with [B] for rows, [B, 1] with [B, N] for lists, [1] with [N] in the exported graph.
What depends on one side only is computed on that side only, so a request pays for its user once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from offline.models.fields_by_id import FieldsById
from offline.models.kernels import linear_relu


class Sides(NamedTuple):
    """One block of inputs, the user's part [*u, n] and the item's (and the pair's) part [*i, m]."""

    user: Tensor
    item: Tensor


class TwoSidedLinear(nn.Module):
    """A linear layer on the concatenation of both sides, without making the concatenation: W_u u + W_i i + b.

    A user's side of size 0 has no weights and is not looked at.
    """

    def __init__(self, user_size: int, item_size: int, out: int) -> None:
        super().__init__()
        whole = nn.Linear(user_size + item_size, out)  # initialised as the one layer that it stands for
        self.user = nn.Linear(user_size, out, bias=False) if user_size else None
        self.item = nn.Linear(item_size, out)
        with torch.no_grad():
            if self.user is not None:
                self.user.weight.copy_(whole.weight[:, :user_size])
            self.item.weight.copy_(whole.weight[:, user_size:])
            self.item.bias.copy_(whole.bias)

    def forward(self, block: Sides, relu: bool = False, by_id: FieldsById | None = None) -> Tensor:
        """([*u, user_size], [*i, item_size]) -> [*i, out], cut at zero if asked for.

        Args:
            by_id: fields that stand before the item's side; `block.item` is then what is behind them.
        """
        if by_id is None and self.user is None and relu:
            return linear_relu(block.item, self.item.weight, self.item.bias)
        made: Tensor = self.item(block.item) if by_id is None else self._behind(by_id, block.item)
        if self.user is not None:
            made = made + self.user(block.user)
        return functional.relu(made, inplace=by_id is not None) if relu else made

    def _behind(self, by_id: FieldsById, item: Tensor) -> Tensor:
        """The item's side of which the first columns came by id."""
        weight, bias = self.item.weight, self.item.bias
        fields = weight.shape[1] - item.shape[-1]
        made = by_id.linear(weight[:, :fields])
        made += functional.linear(item, weight[:, fields:], bias) if item.shape[-1] else bias
        return made


class Mlp(nn.Module):
    """Two-sided first layer, then dense ones, ReLU and dropout between; ends in one number: [*i].

    Args:
        user_size, item_size: of the two parts of the input.
        hidden: sizes of the hidden layers, at least one.
        dropout: after each hidden layer.
    """

    def __init__(self, user_size: int, item_size: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.first = TwoSidedLinear(user_size, item_size, hidden[0])
        self.rest = nn.Sequential(nn.Dropout(dropout), *tower(hidden[0], hidden[1:], dropout), nn.Linear(hidden[-1], 1))

    def forward(self, block: Sides, by_id: FieldsById | None = None) -> Tensor:
        """Logit [*i]; `by_id` as in `TwoSidedLinear.forward`."""
        made: Tensor = self.rest(self.first(block, relu=True, by_id=by_id))
        return made.squeeze(-1)


class LinearRelu(nn.Linear):
    """A linear layer and the ReLU behind it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear_relu(inputs, self.weight, self.bias)


def tower(size: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Dense layers from `size` to the last of `hidden`, each followed by ReLU and dropout."""
    layers: list[nn.Module] = []
    for before, after in pairwise([size, *hidden]):
        layers += [LinearRelu(before, after), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class Projections(nn.Module):
    """Brings fields of unequal embedding sizes to one size, where they can meet; those that have it already are left alone.

    Args:
        sizes: of each field, equal ones following each other as they do in the trunk's blocks.
        size: that all get.
    """

    def __init__(self, sizes: Sequence[int], size: int) -> None:
        super().__init__()
        self.size = size
        self.weights = nn.ParameterList()  # one per block of fields of another size, [fields, before, size]
        self.places: list[int | None] = []  # of each block's weights
        for before, fields in groupby(sizes):
            self.places.append(None if before == size else len(self.weights))
            if before != size:
                weight = torch.empty(len(list(fields)), before, size)
                self.weights.append(nn.Parameter(weight.uniform_(-(before**-0.5), before**-0.5)))

    @property
    def change_nothing(self) -> bool:
        """Whether every field has the size already."""
        return not len(self.weights)

    def forward(self, blocks: Sequence[Tensor]) -> Tensor:
        """Blocks of fields [*, n, d] -> [*, fields, size]; [1, 0, size] of none."""
        parts = [
            block if place is None else torch.einsum("...nd,nds->...ns", block, self.weights[place])
            for block, place in zip(blocks, self.places, strict=True)
        ]
        if not parts:
            return torch.zeros(1, 0, self.size)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


class WeightedNumbers(nn.Module):
    """Numbers as fields of an FM: each value times a learned vector. Returns sum and sum of squares over them, [*, size]."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(count, size) * 0.01)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        return numbers @ self.vectors, numbers.square() @ self.vectors.square()


def fm_pooling(sums: Tensor, squares: Tensor) -> Tensor:
    """All pairwise products of fields, summed, kept per dimension: 0.5 * ((sum v)^2 - sum v^2), [*, size] -> [*, size]."""
    return 0.5 * (sums.square() - squares)


def mask_of(ids: Tensor) -> Tensor:
    """1 for elements, 0 for padding (id 0); float32, shape of the ids."""
    return (ids > 0).float()


class TargetAttention(nn.Module):
    """Pools a sequence by how much each element has to do with the item at hand.

    The simplified DIN unit: softmax over scaled dot products, with a null element of score 0, so that a user without a history,
    or one whose history says nothing about the item, gets zeros.
    """

    def __init__(self, element_size: int, target_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(target_size, element_size, bias=False)

    def forward(self, elements: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """[*u, L, d], [*u, L], [*i, t] -> [*i, d]."""
        query = self.query(target).unsqueeze(-2)  # [*i, 1, d]
        scores = torch.matmul(query, elements.transpose(-1, -2)).squeeze(-2) / elements.shape[-1] ** 0.5  # [*i, L]
        weights = torch.exp(scores.clamp(max=20.0)) * mask
        weights = weights / (weights.sum(-1, keepdim=True) + 1.0)
        return torch.matmul(weights.unsqueeze(-2), elements).squeeze(-2)
