"""DeepFEFM (Pande, 2020): an FM whose pairs meet through a symmetric matrix of their two fields, and an MLP on top of the pairs.

    p_{a, b} = v_a' M_{a, b} v_b,   logit = linear + sum of all p + MLP(embeddings, all p)

Fields of unequal size are projected to one. Numbers and dense vectors enter linearly and in the MLP, as dense inputs do in the
author's code. `fefm` is the model without its MLP. From the paper it leaves out the weight decay of its own for the matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offline.models.inputs import FieldMatrix, LinearTerm, beside, flat, flat_sizes
from offline.models.layers import Mlp, Sides
from offline.models.option_types import Dropout, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Shape


@dataclass(frozen=True)
class DeepFefmOptions:
    """Switches of a DeepFEFM.

    Attributes:
        size: to which fields are projected.
        deep: whether there is an MLP.
        hidden: sizes of its layers.
        dropout: after each of them.
    """

    size: Width = 8
    deep: bool = True
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1


PRESETS: dict[str, dict[str, Any]] = {"default": {}, "fefm": {"deep": False}}


class FieldPairs(nn.Module):
    """v_a' M_{a, b} v_b of every pair a < b: [*, F, size] -> [*, F (F - 1) / 2].

    One matrix product a field: it takes the field through the matrices of all its later partners. Products of all pairs in one
    batch take five times as long on a CPU, whose cache they leave.
    """

    def __init__(self, fields: int, size: int) -> None:
        super().__init__()
        self.fields = fields
        # a symmetric matrix is half of it plus the mirror of that; it starts near the identity, where the model is an FM
        start = torch.eye(size) * 0.5 + torch.randn(fields * (fields - 1) // 2, size, size) * 0.01
        self.halves = nn.Parameter(start)

    def forward(self, fields: Tensor) -> Tensor:
        size = fields.shape[-1]
        matrices = self.halves + self.halves.transpose(-1, -2)  # [pairs, size, size]
        made = []
        for place, of_field in enumerate(matrices.split(list(range(self.fields - 1, 0, -1)))):
            side_by_side = of_field.transpose(0, 1).flatten(1)  # [size, partners * size]
            through = (fields[..., place, :] @ side_by_side).unflatten(-1, (-1, size))
            made.append((through * fields[..., place + 1 :, :]).sum(-1))
        return torch.cat(made, -1)


class DeepFefm(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: DeepFefmOptions) -> None:
        super().__init__()
        self.linear = LinearTerm(shape)
        self.fields = FieldMatrix(shape, options.size, vectors=False)
        self.pairs = FieldPairs(self.fields.count, options.size)
        self.mlp = None
        if options.deep:
            user, item = flat_sizes(shape)
            self.mlp = Mlp(user, item + len(self.pairs.halves), options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        pairs = self.pairs(self.fields(inputs))
        logit = self.linear(inputs) + pairs.sum(-1)
        if self.mlp is None:
            return logit
        user, item = flat(inputs)
        return logit + self.mlp(Sides(user, beside([item, pairs])))


register("deepfefm", DeepFefm, DeepFefmOptions, PRESETS)
