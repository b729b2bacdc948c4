"""xDeepFM (Lian et al., 2018): a compressed interaction network (CIN) of explicit, vector-wise crosses, an MLP and a linear part.

    x^k_h = sum over i, j of W^k_{h, i, j} (x^{k-1}_i * x^0_j)      feature maps of layer k, element by element of an embedding

    default  W^k_h of low rank, U_h V_h', the paper's own way to save (its L-order decomposition): two products with small matrices
             replace the outer product of all fields
    full     W^k_h as it is

Each map is summed over its elements and enters the logit linearly. The CIN reads embeddings, projected to one size; numbers and
dense vectors enter linearly and in the MLP, the paper's own data having none. It leaves out the CIN's activation, which the paper
found best as the identity, and its variant that passes half of the maps on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offline.models.inputs import FieldMatrix, LinearTerm, flat, flat_sizes
from offline.models.layers import Mlp
from offline.models.option_types import Dropout, Rank, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Shape


@dataclass(frozen=True)
class XDeepFmOptions:
    """Switches of an xDeepFM.

    Attributes:
        size: to which fields are projected.
        maps: feature maps of each layer of the CIN.
        rank: of its weights; 0: full.
        hidden: sizes of the MLP's layers.
        dropout: after each of them.
    """

    size: Width = 16
    maps: Widths = (16, 16)
    rank: Rank = 2
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1


PRESETS: dict[str, dict[str, Any]] = {"default": {}, "full": {"rank": 0}}


class FullCross(nn.Module):
    """One layer: [R, size, H] and [R, size, F] -> [R, size, maps], one matrix product over rows and elements."""

    def __init__(self, before: int, fields: int, maps: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before * fields, maps, bias=False)

    def forward(self, crossed: Tensor, x: Tensor) -> Tensor:
        return self.linear((crossed.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2))


class LowRankCross(nn.Module):
    """As FullCross with W_h = U_h V_h': the product of two linear maps, summed over the rank."""

    def __init__(self, before: int, fields: int, maps: int, rank: int) -> None:
        super().__init__()
        self.maps = maps
        self.left = nn.Linear(before, maps * rank, bias=False)
        self.right = nn.Linear(fields, maps * rank, bias=False)

    def forward(self, crossed: Tensor, x: Tensor) -> Tensor:
        return (self.left(crossed) * self.right(x)).unflatten(-1, (self.maps, -1)).sum(-1)


class Cin(nn.Module):
    """The network of crosses: [*, F, size] -> [*, all maps]."""

    def __init__(self, fields: int, maps: Sequence[int], rank: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            LowRankCross(before, fields, count, rank) if rank else FullCross(before, fields, count)
            for before, count in zip([fields, *maps], maps, strict=False)
        )

    def forward(self, fields: Tensor) -> Tensor:
        x = fields.transpose(-1, -2)  # [*, size, F]
        crossed, sums = x, []
        for layer in self.layers:
            crossed = layer(crossed, x)
            sums.append(crossed.sum(-2))
        return torch.cat(sums, -1)


class XDeepFm(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: XDeepFmOptions) -> None:
        super().__init__()
        self.linear = LinearTerm(shape)
        self.fields = FieldMatrix(shape, options.size, vectors=False)
        self.cin = Cin(self.fields.count, options.maps, options.rank)
        self.out = nn.Linear(sum(options.maps), 1, bias=False)
        self.mlp = Mlp(*flat_sizes(shape), options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        crossed = self.out(self.cin(self.fields(inputs))).squeeze(-1)
        return self.linear(inputs) + crossed + self.mlp(flat(inputs))


register("xdeepfm", XDeepFm, XDeepFmOptions, PRESETS)
