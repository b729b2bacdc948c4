"""DeepFM (Guo et al., 2017): first-order weights, an FM over field embeddings and an MLP, added up to one logit.

The systems that people know under this name differ, so their differences are switches, and the known variants are presets:

    default         FM over ids; numbers enter linearly and in the MLP, with embeddings and the FM's pooled vector beside them
    guo             the paper: the FM also weighs numeric fields by learned vectors; the MLP reads embeddings only
    numbers_in_fm   numeric fields weighted inside the FM, and in the MLP
    numbers_deep    numeric fields only in the MLP, not even linearly
    deep_on_dense   the MLP on dense features alone; embeddings meet only in the FM
    vector_beside   dense vectors (a text's) through an MLP of their own, beside the others

Fields of unequal embedding size are projected to one size before they meet in the FM. From the paper it leaves out the
initialisation scheme and the sharing of one dropout rate over all depths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offline.models.layers import Mlp, Projections, Sides, WeightedNumbers, fm_pooling
from offline.models.registry import register
from offline.models.trunk import Assembled, Shape


@dataclass(frozen=True)
class DeepFmOptions:
    """Switches of a DeepFM.

    Attributes:
        fm_size: size to which fields are projected.
        hidden: sizes of the MLP's hidden layers.
        dropout: after each of them.
        linear_numbers: numbers also enter the logit linearly.
        numbers_in_fm: numbers are fields of the FM, each times a learned vector.
        deep_inputs: what the MLP reads: `embeddings`, `dense` (numbers and vectors) or `both`.
        deep_fm: the MLP also reads the FM's pooled vector.
        vectors: dense vectors go into the MLP (`deep`) or through one of their own (`beside`).
    """

    fm_size: int = 16
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.1
    linear_numbers: bool = True
    numbers_in_fm: bool = False
    deep_inputs: Literal["embeddings", "dense", "both"] = "both"
    deep_fm: bool = True
    vectors: Literal["deep", "beside"] = "deep"


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "guo": {"numbers_in_fm": True, "deep_inputs": "embeddings", "deep_fm": False},
    "numbers_in_fm": {"numbers_in_fm": True, "deep_fm": False},
    "numbers_deep": {"linear_numbers": False, "deep_fm": False},
    "deep_on_dense": {"deep_inputs": "dense", "deep_fm": False},
    "vector_beside": {"vectors": "beside"},
}


class DeepFm(nn.Module):
    """One head's network.

    Args:
        shape: sizes of what the trunk assembles.
        options: switches.
    """

    def __init__(self, shape: Shape, options: DeepFmOptions) -> None:
        super().__init__()
        self.options = options
        size = options.fm_size
        self.user_projections = Projections(shape.user_fields, size)
        self.item_projections = Projections(shape.item_fields, size)
        if options.numbers_in_fm:
            self.user_weighted = WeightedNumbers(shape.user_numbers, size)
            self.item_weighted = WeightedNumbers(shape.item_numbers, size)
        if options.linear_numbers:
            self.user_linear = nn.Linear(shape.user_numbers, 1, bias=False)
            self.item_linear = nn.Linear(shape.item_numbers, 1, bias=False)
            nn.init.zeros_(self.user_linear.weight)
            nn.init.zeros_(self.item_linear.weight)
        self.bias = nn.Parameter(torch.zeros(()))
        user, item = 0, options.deep_fm * size
        if options.deep_inputs != "dense":
            user, item = user + sum(shape.user_fields), item + sum(shape.item_fields)
        if options.deep_inputs != "embeddings":
            user, item = user + shape.user_numbers, item + shape.item_numbers
        if options.vectors == "deep":
            user, item = user + shape.user_vectors, item + shape.item_vectors
        self.mlp = Mlp(user, item, options.hidden, options.dropout)
        if options.vectors == "beside":
            self.beside = Mlp(shape.user_vectors, shape.item_vectors, options.hidden[-1:], options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        pooled = self._pooled(inputs)  # [*i, fm_size]
        logit = pooled.sum(-1) + inputs.first_order[0] + inputs.first_order[1] + self.bias
        logit = logit + self.mlp(self._deep(inputs, pooled))
        if self.options.linear_numbers:
            numbers = inputs.numbers
            logit = logit + (self.user_linear(numbers.user) + self.item_linear(numbers.item)).squeeze(-1)
        if self.options.vectors == "beside":
            logit = logit + self.beside(inputs.vectors)
        return logit

    def _pooled(self, inputs: Assembled) -> Tensor:
        """The FM's sum of pairwise products; each side is summed on its own and then broadcast."""
        user = torch.stack(self.user_projections(inputs.user_fields), -2)  # [*u, fields, size]
        item = torch.stack(self.item_projections(inputs.item_fields), -2)
        user_sum, user_squares = user.sum(-2), user.square().sum(-2)
        item_sum, item_squares = item.sum(-2), item.square().sum(-2)
        if self.options.numbers_in_fm:
            added, squares = self.user_weighted(inputs.numbers.user)
            user_sum, user_squares = user_sum + added, user_squares + squares
            added, squares = self.item_weighted(inputs.numbers.item)
            item_sum, item_squares = item_sum + added, item_squares + squares
        return fm_pooling(user_sum + item_sum, user_squares + item_squares)

    def _deep(self, inputs: Assembled, pooled: Tensor) -> Sides:
        user, item = [inputs.numbers.user[..., :0]], [inputs.numbers.item[..., :0]]
        if self.options.deep_inputs != "dense":
            user, item = user + inputs.user_fields, item + inputs.item_fields
        if self.options.deep_inputs != "embeddings":
            user, item = [*user, inputs.numbers.user], [*item, inputs.numbers.item]
        if self.options.vectors == "deep":
            user, item = [*user, inputs.vectors.user], [*item, inputs.vectors.item]
        if self.options.deep_fm:
            item = [*item, pooled]
        return Sides(torch.cat(user, -1), torch.cat(item, -1))


register("deepfm", DeepFm, DeepFmOptions, PRESETS)
