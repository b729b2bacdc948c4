"""FinalMLP (Mao et al., 2023): two MLPs over the same input, each behind a gate of its own, fused bilinearly.

    gate    x * 2 sigmoid(MLP(context)): the first stream's context is the user's side, the second's the item's (the paper's
            user- and item-specific gates); where a scene has no user's side both contexts are learned vectors (its global ones)
    fusion  sum over heads of w1.o1 + w2.o2 + o1' W o2, each head over its part of both outputs

The input is embeddings, normalised numbers and dense vectors side by side. The gate of the user's side is computed once a request.
From the paper it leaves out batch normalisation and streams of unequal size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from data_exchange_center.errors import SettingsError
from offline.models.inputs import flat, flat_sizes, joined
from offline.models.layers import tower
from offline.models.option_types import Count, Dropout, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class FinalMlpOptions:
    """Switches of a FinalMLP.

    Attributes:
        hidden: sizes of each stream's layers.
        dropout: after each of them.
        gates: whether the streams are gated; without gates this is the paper's DualMLP with fusion.
        gate_size: hidden size of a gate, and size of a learned context.
        fusion_heads: of the fusion; they share the last hidden size.
    """

    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1
    gates: bool = True
    gate_size: Width = 16
    fusion_heads: Count = 2


PRESETS: dict[str, dict[str, Any]] = {"default": {}, "no_gates": {"gates": False}}


class FeatureGate(nn.Module):
    """2 sigmoid(MLP(context)), [*, context] -> [*, size]; a context of size 0 is learned."""

    def __init__(self, context: int, hidden: int, size: int) -> None:
        super().__init__()
        self.learned = None if context else nn.Parameter(torch.randn(1, hidden) * 0.1)
        self.layers = nn.Sequential(nn.Linear(context or hidden, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, context: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.layers(context if self.learned is None else self.learned))


class BilinearFusion(nn.Module):
    """Two outputs [*, n] -> logit [*]."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        if size % heads:
            raise SettingsError(f"{heads} fusion_heads cannot share a last hidden layer of {size}", field="rank.model")
        self.heads = heads
        self.linear = nn.Linear(2 * size, 1)
        self.weight = nn.Parameter(torch.randn(heads, size // heads, size // heads) * heads / size)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        linear = self.linear(torch.cat([first, second], -1)).squeeze(-1)
        ours, theirs = (out.unflatten(-1, (self.heads, -1)) for out in (first, second))
        return linear + (torch.einsum("...hi,hij->...hj", ours, self.weight) * theirs).sum((-2, -1))


class FinalMlp(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: FinalMlpOptions) -> None:
        super().__init__()
        user, item = flat_sizes(shape)
        self.gates = None
        if options.gates:
            contexts = (user, item) if user else (0, 0)
            self.gates = nn.ModuleList(FeatureGate(context, options.gate_size, user + item) for context in contexts)
        self.streams = nn.ModuleList(tower(user + item, options.hidden, options.dropout) for _ in range(2))
        self.fusion = BilinearFusion(options.hidden[-1], options.fusion_heads)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        block = flat(inputs)
        x = joined(block)
        seen = [x, x] if self.gates is None else [x * gate(side) for gate, side in zip(self.gates, block, strict=True)]
        first, second = (stream(part) for stream, part in zip(self.streams, seen, strict=True))
        return self.fusion(first, second)


register("finalmlp", FinalMlp, FinalMlpOptions, PRESETS, lambda options: Reads(first_order=False))
