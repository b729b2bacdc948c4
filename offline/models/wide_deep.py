"""Wide & Deep (Cheng et al., 2016): a linear model that memorises, and an MLP that generalises, added up and learned together.

The deep part reads embeddings with the normalised numbers beside them, as in the paper; the wide part reads ids. Its cross-product
transformations are features: a hashed combination of ids that the spec declares has its weight here like any other id. From the
paper it leaves out FTRL for the wide part: both parts have one optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from offline.models.inputs import LinearTerm, flat, flat_sizes
from offline.models.layers import Mlp
from offline.models.option_types import Dropout, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Shape


@dataclass(frozen=True)
class WideDeepOptions:
    """Switches of a Wide & Deep.

    Attributes:
        hidden: sizes of the deep part's layers.
        dropout: after each of them.
        wide_numbers: numbers and dense vectors enter the wide part too.
    """

    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1
    wide_numbers: bool = False


PRESETS: dict[str, dict[str, Any]] = {"default": {}, "wide_numbers": {"wide_numbers": True}}


class WideDeep(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: WideDeepOptions) -> None:
        super().__init__()
        self.wide = LinearTerm(shape, numbers=options.wide_numbers, vectors=options.wide_numbers)
        self.deep = Mlp(*flat_sizes(shape), options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        return self.wide(inputs) + self.deep(flat(inputs))


register("wide_deep", WideDeep, WideDeepOptions, PRESETS)
