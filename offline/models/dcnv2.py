"""DCN v2 (Wang et al., 2021): cross layers with a matrix in place of DCN's vector, beside or below an MLP.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l

    default  the MLP in parallel: the logit is linear in both outputs
    stacked  the MLP on top of the crosses
    mixture  W_l as a mixture of low-rank experts: sum_k g_k(x_l) U_k tanh(C_k tanh(V_k' x_l)), with softmax gates g

The input is embeddings, normalised numbers and dense vectors side by side, as in the paper. From the paper it leaves out the
projection to one size per vocabulary (sizes are declared by the spec) and sigmoid gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offline.models.inputs import flat, flat_sizes, joined
from offline.models.layers import Mlp, Sides
from offline.models.option_types import Count, Dropout, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class DcnV2Options:
    """Switches of a DCN v2.

    Attributes:
        crosses: cross layers.
        hidden: sizes of the MLP's layers.
        dropout: after each of them.
        stacked: the MLP reads the last cross; else both read the input.
        experts: low-rank experts of each cross; 0: one full matrix.
        rank: of an expert.
    """

    crosses: Count = 2
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1
    stacked: bool = False
    experts: Count = 0
    rank: Width = 16


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "stacked": {"stacked": True},
    "mixture": {"experts": 4},
}


class Experts(nn.Module):
    """A matrix as a mixture of low-rank ones: [*, n] -> [*, n]; all experts in three matrix products."""

    def __init__(self, size: int, experts: int, rank: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, experts)
        self.down = nn.Linear(size, experts * rank, bias=False)
        self.middle = nn.Parameter(torch.randn(experts, rank, rank) * rank**-0.5)
        self.up = nn.Linear(experts * rank, size)

    def forward(self, x: Tensor) -> Tensor:
        experts, rank, _ = self.middle.shape
        low = torch.tanh(self.down(x)).unflatten(-1, (experts, rank))
        low = torch.tanh(torch.einsum("...kr,krs->...ks", low, self.middle))
        gated = low * torch.softmax(self.gate(x), -1).unsqueeze(-1)
        return self.up(gated.flatten(-2))  # sums over experts; their gates add up to one, so one bias serves all


class CrossMatrices(nn.Module):
    """The cross layers, [*, n] -> [*, n]."""

    def __init__(self, size: int, options: DcnV2Options) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Experts(size, options.experts, options.rank) if options.experts else nn.Linear(size, size)
            for _ in range(options.crosses)
        )

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for layer in self.layers:
            crossed = x * layer(crossed) + crossed
        return crossed


class DcnV2(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: DcnV2Options) -> None:
        super().__init__()
        user, item = flat_sizes(shape)
        self.crosses = CrossMatrices(user + item, options)
        self.crossed = None if options.stacked else nn.Linear(user + item, 1)
        sizes = (0, user + item) if options.stacked else (user, item)
        self.deep = Mlp(*sizes, options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        block = flat(inputs)
        crossed = self.crosses(joined(block))
        if self.crossed is None:
            return self.deep(Sides(block.user, crossed))
        return self.crossed(crossed).squeeze(-1) + self.deep(block)


register("dcnv2", DcnV2, DcnV2Options, PRESETS, lambda options: Reads(first_order=False))
