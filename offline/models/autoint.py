"""AutoInt (Song et al., 2019): multi-head self-attention among fields, with a residual, some layers deep.

A categorical field is its embedding and a number is its value times a learned vector, as in the paper; the dense vectors of a side
are one field, projected. As in the paper, scores are not scaled, and the logit is linear in all fields of the last layer.

    default  attention alone
    plus     AutoInt+: an MLP on the input beside it

Every field meets every other, so all of them are brought to each item. It leaves out nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offline.models.inputs import FieldMatrix, flat, flat_sizes
from offline.models.layers import Mlp
from offline.models.option_types import Count, Dropout, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class AutoIntOptions:
    """Switches of an AutoInt.

    Attributes:
        size: to which fields are projected, and that of each layer's output.
        layers: of attention.
        heads: of each; they share `size`.
        deep: an MLP beside the attention.
        hidden: sizes of its layers.
        dropout: after each of those, and on attention weights.
    """

    size: Width = 16
    layers: Count = 2
    heads: Count = 2
    deep: bool = False
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1


PRESETS: dict[str, dict[str, Any]] = {"default": {}, "plus": {"deep": True}}


class Interacting(nn.Module):
    """One layer of attention: [*, F, size] -> [*, F, size]."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.maps = nn.Linear(size, 4 * size, bias=False)  # query, key, value and residual in one product

    def forward(self, fields: Tensor) -> Tensor:
        size = fields.shape[-1]
        maps = self.maps(fields)
        split = maps[..., : 3 * size].unflatten(-1, (3, self.heads, size // self.heads))
        query, key, value = split.movedim((-3, -2), (0, -3))  # [*, heads, F, size / heads]
        weights = self.dropout(torch.softmax(query @ key.transpose(-1, -2), -1))
        attended = (weights @ value).movedim(-3, -2).flatten(-2)
        return torch.relu(attended + maps[..., 3 * size :])


class AutoInt(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: AutoIntOptions) -> None:
        super().__init__()
        self.fields = FieldMatrix(shape, options.size, numbers=True)
        self.layers = nn.Sequential(
            *(Interacting(options.size, options.heads, options.dropout) for _ in range(options.layers))
        )
        self.out = nn.Linear(self.fields.count * options.size, 1)
        self.mlp = Mlp(*flat_sizes(shape), options.hidden, options.dropout) if options.deep else None

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        logit = self.out(self.layers(self.fields(inputs)).flatten(-2)).squeeze(-1)
        return logit if self.mlp is None else logit + self.mlp(flat(inputs))


register("autoint", AutoInt, AutoIntOptions, PRESETS, lambda options: Reads(first_order=False))
