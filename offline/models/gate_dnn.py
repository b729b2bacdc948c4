"""Gate-DNN: a DNN with the gates of GateNet (Huang, She, Wang, Zhang, 2020) on its embeddings and on its hidden layers.

    embedding gate  each field is multiplied by a sigmoid of itself: one number a field (`vector`), or one an element (`bit`);
                    every field has weights of its own (the paper's private gate)
    hidden gate     each hidden layer is multiplied, element by element, by a sigmoid of a linear map of itself

Fields of unequal size are projected to one. Numbers and dense vectors are no embeddings: they enter the MLP beside the gated ones,
without a gate. From the paper it leaves out gates that fields share, which it found worse, and gates inside other architectures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offline.models.inputs import FieldMatrix, beside, flat, flat_sizes
from offline.models.layers import Sides, TwoSidedLinear
from offline.models.option_types import Dropout, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class GateDnnOptions:
    """Switches of a Gate-DNN.

    Attributes:
        size: to which fields are projected.
        hidden: sizes of the hidden layers.
        dropout: after each of them.
        gate: what one weight of an embedding gate multiplies.
        hidden_gate: whether hidden layers are gated too.
    """

    size: Width = 16
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1
    gate: Literal["vector", "bit"] = "vector"
    hidden_gate: bool = True


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "bit": {"gate": "bit"},
    "embedding_gate": {"hidden_gate": False},
}


class FieldGates(nn.Module):
    """Multiplies each field of [*, F, size] by its gate."""

    def __init__(self, fields: int, size: int, gate: Literal["vector", "bit"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fields, size, size if gate == "bit" else 1) * size**-0.5)

    def forward(self, fields: Tensor) -> Tensor:
        # [*, F, size] x [F, size, g] -> [*, F, g]
        return fields * torch.sigmoid(torch.einsum("...fi,fig->...fg", fields, self.weight))


class HiddenGate(nn.Module):
    """h * sigmoid(W h)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * torch.sigmoid(self.linear(hidden))


class GateDnn(nn.Module):
    """One head's network; both sides are gated apart, and a request gates its user once."""

    def __init__(self, shape: Shape, options: GateDnnOptions) -> None:
        super().__init__()
        self.fields = FieldMatrix(shape, options.size, vectors=False)
        counts = (self.fields.user.count, self.fields.item.count)
        self.gates = nn.ModuleList(
            FieldGates(count, options.size, options.gate) if count else nn.Identity() for count in counts
        )
        dense = flat_sizes(shape, fields=False)
        user, item = (count * options.size + more for count, more in zip(counts, dense, strict=True))
        self.first = TwoSidedLinear(user, item, options.hidden[0])
        layers: list[nn.Module] = []
        for before, after in zip(options.hidden, [*options.hidden[1:], 1], strict=True):
            gate = [HiddenGate(before)] if options.hidden_gate else []
            layers += [nn.ReLU(), *gate, nn.Dropout(options.dropout), nn.Linear(before, after)]
        self.rest = nn.Sequential(*layers)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        dense = flat(inputs, fields=False)
        gated = [gate(side).flatten(-2) for gate, side in zip(self.gates, self.fields.sides(inputs), strict=True)]
        block = Sides(beside([gated[0], dense.user]), beside([gated[1], dense.item]))
        return self.rest(self.first(block)).squeeze(-1)


register("gate_dnn", GateDnn, GateDnnOptions, PRESETS, lambda options: Reads(first_order=False))
