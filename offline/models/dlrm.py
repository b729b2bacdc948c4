"""DLRM (Naumov et al., 2019): dot products of all pairs of fields, under an MLP.

Numbers (and dense vectors) go through a bottom MLP that ends in one more vector of the fields' size, as in the paper; in a scene
without any there is no bottom. The top MLP reads that vector and the dot products. From the paper it leaves out a field's product
with itself, an option there, and the parallelism of its tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline.models.inputs import FieldMatrix, beside, flat, flat_sizes, joined, pair_places
from offline.models.layers import Mlp, Sides, TwoSidedLinear, tower
from offline.models.option_types import Dropout, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class DlrmOptions:
    """Switches of a DLRM.

    Attributes:
        size: to which fields are projected.
        bottom: sizes of the bottom MLP's hidden layers; `size` follows.
        hidden: sizes of the top MLP's layers.
        dropout: after each of those.
    """

    size: Width = 16
    bottom: Widths = (32,)
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1


class Dlrm(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: DlrmOptions) -> None:
        super().__init__()
        self.fields = FieldMatrix(shape, options.size, vectors=False)
        user, item = flat_sizes(shape, fields=False)
        self.bottom = None
        if user + item:
            self.bottom = nn.Sequential(
                TwoSidedLinear(user, item, options.bottom[0]),
                nn.ReLU(),
                *tower(options.bottom[0], [*options.bottom[1:], options.size], 0.0),
            )
        count = self.fields.count + (self.bottom is not None)
        self.pairs: Tensor
        self.register_buffer("pairs", pair_places(count), persistent=False)
        self.top = Mlp(0, len(self.pairs) + options.size * (self.bottom is not None), options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        fields, beyond = self.fields(inputs), []
        if self.bottom is not None:
            dense = self.bottom(flat(inputs, fields=False))
            fields, beyond = joined(Sides(dense.unsqueeze(-2), fields), -2), [dense]
        products = torch.matmul(fields, fields.transpose(-1, -2)).flatten(-2)
        return self.top(Sides(products[..., :0], beside([*beyond, products.index_select(-1, self.pairs)])))


register("dlrm", Dlrm, DlrmOptions, {}, lambda options: Reads(first_order=False))
