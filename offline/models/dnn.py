"""DNN: one multi-layer perceptron over everything, the deep part that the hybrids have in common (Covington et al., 2016).

Embeddings, normalised numbers and dense vectors enter side by side, as in the paper's ranking network. From the paper it leaves
out the square and the root of each number as further inputs, and the weighting of rows by watch time.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from offline.models.inputs import flat, flat_sizes
from offline.models.layers import Mlp
from offline.models.option_types import Dropout, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class DnnOptions:
    """Switches of a DNN.

    Attributes:
        hidden: sizes of the hidden layers.
        dropout: after each of them.
    """

    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1


class Dnn(nn.Module):
    """One head's network."""

    def __init__(self, shape: Shape, options: DnnOptions) -> None:
        super().__init__()
        self.mlp = Mlp(*flat_sizes(shape), options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        return self.mlp(flat(inputs))


register("dnn", Dnn, DnnOptions, {}, lambda options: Reads(first_order=False))
