"""Deep & Cross Network (Wang et al., 2017): cross layers and an MLP in parallel over one input vector.

    x_{l+1} = x_0 (x_l . w_l) + b_l + x_l

The input is what the paper's is: embeddings and normalised numbers (and dense vectors), side by side. The logit is linear in both
outputs. From the paper it leaves out batch normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline.models.inputs import flat, flat_sizes, joined
from offline.models.layers import Mlp
from offline.models.option_types import Count, Dropout, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class DcnOptions:
    """Switches of a DCN.

    Attributes:
        crosses: cross layers.
        hidden: sizes of the MLP's layers.
        dropout: after each of them.
    """

    crosses: Count = 3
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1


class CrossVectors(nn.Module):
    """The cross layers, [*, n] -> [*, n]."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(layers, size) * size**-0.5)
        self.biases = nn.Parameter(torch.zeros(layers, size))

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for weight, bias in zip(self.weights, self.biases, strict=True):
            crossed = x * (crossed @ weight).unsqueeze(-1) + bias + crossed
        return crossed


class Dcn(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: DcnOptions) -> None:
        super().__init__()
        user, item = flat_sizes(shape)
        self.crosses = CrossVectors(user + item, options.crosses)
        self.crossed = nn.Linear(user + item, 1)
        self.deep = Mlp(user, item, options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        block = flat(inputs)
        return self.crossed(self.crosses(joined(block))).squeeze(-1) + self.deep(block)


register("dcn", Dcn, DcnOptions, {}, lambda options: Reads(first_order=False))
