"""Decision trees as tensors: what a library grew, in the network's graph, so that one file scores with both.

All trees have one depth and are stored as heaps: node n asks whether a number is above its threshold, and goes to 2n + 1 if not and
to 2n + 2 if so. A branch that ends early goes on by questions that are never answered by yes. A row passes all trees at once, level
by level, by gathers alone (the perfect tree traversal of Nakandala et al., 2020, "A Tensor Compiler for Unified Machine Learning
Prediction Serving").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Trees(nn.Module):
    """Numbers float32 [*, m] -> the sum of what the trees say, float32 [*].

    Args:
        count: of trees. depth: of each, in questions.
    """

    def __init__(self, count: int, depth: int) -> None:
        super().__init__()
        self.count, self.depth = count, depth
        inner = 2**depth - 1
        self.features: Tensor
        self.thresholds: Tensor
        self.leaves: Tensor
        self.register_buffer("features", torch.zeros(count * inner, dtype=torch.int64))  # tree after tree
        self.register_buffer("thresholds", torch.full((count * inner,), torch.inf))
        self.register_buffer("leaves", torch.zeros(count * (inner + 1)))
        self.roots: Tensor
        self.first_leaves: Tensor
        self.register_buffer("roots", torch.arange(count) * inner, persistent=False)
        self.register_buffer("first_leaves", torch.arange(count) * (inner + 1) - inner, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        asked = numbers.index_select(-1, self.features[self.roots])
        node = 1 + (asked > self.thresholds[self.roots]).long()  # [*, count]
        for _ in range(self.depth - 1):
            place = self.roots + node
            asked = numbers.gather(-1, self.features[place])
            node = 2 * node + 1 + (asked > self.thresholds[place]).long()
        return self.leaves[self.first_leaves + node].sum(-1)
