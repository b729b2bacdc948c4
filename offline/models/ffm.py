"""Field-aware factorization machine (Juan et al., 2016): a feature has a factor for each field that it can meet.

    logit = linear + sum over pairs of fields a < b of v_{a, b} . v_{b, a}

An id's embedding holds its factors for all fields side by side, so its size is `size` times the number of fields, whatever the spec
declares. The numbers and dense vectors of a side are one more field each, whose factors are the sum of value times factor, the
paper's form for several features in one field; bucketized numbers are categorical, the paper's other way. Pairs within one side
are added up on that side. It leaves out pairs within one field, the paper's normalisation of rows, and its learner.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline.models.inputs import LinearTerm, beside, pair_places
from offline.models.option_types import Width
from offline.models.registry import register
from offline.models.trunk import Assembled, Fields, Reads, Shape


@dataclass(frozen=True)
class FfmOptions:
    """Switches of an FFM.

    Attributes:
        size: of a factor.
    """

    size: Width = 4


DENSE = 2  # fields of numbers and dense vectors: one a side


class FieldAware(nn.Module):
    """One side's fields: [*, G, fields, size], a factor of each for every field of the scene."""

    def __init__(self, ids: int, dense: int, fields: int, size: int) -> None:
        super().__init__()
        self.fields, self.size = fields, size
        self.count = ids + (dense > 0)
        self.dense = nn.Linear(dense, fields * size, bias=False) if dense else None

    def forward(self, fields: Fields, dense: Tensor) -> Tensor:
        parts = list(fields.blocks) if self.dense is None else [*fields.blocks, self.dense(dense).unsqueeze(-2)]
        if not parts:
            return dense.new_zeros(1, 0, self.fields, self.size)
        return (parts[0] if len(parts) == 1 else torch.cat(parts, -2)).unflatten(-1, (self.fields, self.size))


class PairsWithin(nn.Module):
    """Sum over a < b of v_{a, b} . v_{b, a}: [*, G, G, size] -> [*]."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.upper: Tensor
        self.lower: Tensor
        places = pair_places(fields)
        self.register_buffer("upper", places, persistent=False)
        self.register_buffer("lower", places % fields * fields + places // fields, persistent=False)

    def forward(self, factors: Tensor) -> Tensor:
        rows = factors.flatten(-3, -2)
        return (rows.index_select(-2, self.upper) * rows.index_select(-2, self.lower)).sum((-2, -1))


class Ffm(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: FfmOptions) -> None:
        super().__init__()
        self.linear = LinearTerm(shape)
        fields = len(shape.user_fields) + len(shape.item_fields) + DENSE
        self.user = FieldAware(len(shape.user_fields), shape.user_numbers + shape.user_vectors, fields, options.size)
        self.item = FieldAware(len(shape.item_fields), shape.item_numbers + shape.item_vectors, fields, options.size)
        self.of_user, self.of_item = PairsWithin(self.user.count), PairsWithin(self.item.count)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        user = self.user(inputs.user_fields, beside([inputs.numbers.user, inputs.vectors.user]))
        item = self.item(inputs.item_fields, beside([inputs.numbers.item, inputs.vectors.item]))
        users, items = self.user.count, self.item.count  # the user's fields are first in the order of factors
        logit = self.linear(inputs) + self.of_item(item[..., users : users + items, :])
        if not users:
            return logit
        across = user[..., users : users + items, :] * item[..., :users, :].transpose(-3, -2)
        return logit + self.of_user(user[..., :users, :]) + across.sum((-3, -2, -1))


def _reads(options: FfmOptions) -> Reads:
    return Reads(embedding_size=lambda fields, declared: (fields + DENSE) * options.size)


register("ffm", Ffm, FfmOptions, {}, _reads)
