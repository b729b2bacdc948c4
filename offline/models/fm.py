"""Factorization machine (Rendle, 2010): linear terms and all pairwise products of the factors of what is present.

A categorical field is the factor of its id; a number is its value times a factor of its own, as in the paper, where every column
of the design matrix has one. Elements of dense vectors enter linearly only. The sum over pairs is the paper's linear-time form.
It leaves out orders above two and the paper's learners (Adam learns it here, with weight decay on embeddings).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from offline.models.inputs import FmPooling, LinearTerm
from offline.models.option_types import Width
from offline.models.registry import register
from offline.models.trunk import Assembled, Shape


@dataclass(frozen=True)
class FmOptions:
    """Switches of an FM.

    Attributes:
        size: of a factor; fields of another embedding size are projected to it.
        numbers: numbers have factors, and not only linear weights.
    """

    size: Width = 16
    numbers: bool = True


PRESETS: dict[str, dict[str, Any]] = {"default": {}, "ids": {"numbers": False}}


class Fm(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: FmOptions) -> None:
        super().__init__()
        self.linear = LinearTerm(shape)
        self.pairs = FmPooling(shape, options.size, options.numbers)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        return self.linear(inputs) + self.pairs(inputs).sum(-1)


register("fm", Fm, FmOptions, PRESETS)
