"""Deep Interest Network (Zhou et al., 2018): the user's list is pooled by what each element has to do with the item at hand.

    weight_l = MLP(e_l, t, e_l - t, e_l * t)    the activation unit, without a softmax over the list, as in the paper
    interest = sum_l weight_l e_l               and once more with the elements' own weights (liked or not), if they have them

The interests enter an MLP beside embeddings (the list's plain pooling among them), normalised numbers and dense vectors. Of the
activation unit's first layer, the part that reads the element alone is computed once a request.

    default  the paper's unit
    dot      softmax over scaled dot products in its place, far cheaper

From the paper it leaves out Dice (ReLU serves) and mini-batch aware regularisation. A scene needs a user-side sequence that shares
the vocabulary of an item-side feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from data_exchange_center.errors import SettingsError
from offline.models.inputs import beside, flat, flat_sizes
from offline.models.layers import Mlp, Sides, TargetAttention, tower
from offline.models.option_types import Dropout, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


@dataclass(frozen=True)
class DinOptions:
    """Switches of a DIN.

    Attributes:
        hidden: sizes of the MLP's layers.
        dropout: after each of them.
        unit: how an element's weight is found.
        unit_hidden: sizes of the activation unit's layers.
    """

    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1
    unit: Literal["mlp", "dot"] = "mlp"
    unit_hidden: Widths = (32, 16)


PRESETS: dict[str, dict[str, Any]] = {"default": {}, "dot": {"unit": "dot"}}


class ActivationUnit(nn.Module):
    """Weight of each element for a target: [*u, L, d] and [*i, d] -> [*i, L]."""

    def __init__(self, size: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Linear(4 * size, hidden[0])
        self.rest = nn.Sequential(nn.ReLU(), *tower(hidden[0], hidden[1:], 0.0), nn.Linear(hidden[-1], 1))

    def forward(self, elements: Tensor, target: Tensor) -> Tensor:
        of_element, of_target, of_difference, of_product = self.first.weight.chunk(4, 1)
        # W (e, t, e - t, e * t), one block at a time: what reads one side alone is not repeated for the other
        once = elements @ (of_element + of_difference).T  # [*u, L, h]
        each = nn.functional.linear(target, of_target - of_difference, self.first.bias).unsqueeze(-2)  # [*i, 1, h]
        pair = (elements * target.unsqueeze(-2)) @ of_product.T  # [*i, L, h]
        return self.rest(once + each + pair).squeeze(-1)


class Interest(nn.Module):
    """Pools one sequence for a target: [*i, d], or [*i, 2 d] where its elements have weights."""

    def __init__(self, size: int, options: DinOptions) -> None:
        super().__init__()
        self.unit = ActivationUnit(size, options.unit_hidden) if options.unit == "mlp" else None
        self.attention = TargetAttention(size, size) if options.unit == "dot" else None

    def forward(self, elements: Tensor, mask: Tensor, weights: Tensor | None, target: Tensor) -> Tensor:
        if self.attention is not None:
            plain = self.attention(elements, mask, target)
            return plain if weights is None else beside([plain, self.attention(elements, mask * weights, target)])
        active = self.unit(elements, target) * mask  # type: ignore[misc]  # there is one of the two
        kinds = [active] if weights is None else [active, active * weights]
        return torch.matmul(torch.stack(kinds, -2), elements).flatten(-2)


class Din(nn.Module):
    """One head's network.

    Raises:
        SettingsError: the scene has no sequence.
    """

    def __init__(self, shape: Shape, options: DinOptions) -> None:
        super().__init__()
        if not shape.sequences:
            raise SettingsError(
                "model 'din' needs a sequence: a user-side feature of type `sequence` that shares the vocabulary of an "
                "item-side feature; this scene's feature spec declares none, so choose another rank.model",
                field="rank.model",
            )
        self.interests = nn.ModuleList(Interest(size, options) for size, _ in shape.sequences)
        user, item = flat_sizes(shape)
        more = sum(size * (2 if weighted else 1) for size, weighted in shape.sequences)
        self.mlp = Mlp(user, item + more, options.hidden, options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        block = flat(inputs)
        interests = [pool(*sequence) for pool, sequence in zip(self.interests, inputs.sequences, strict=True)]
        return self.mlp(Sides(block.user, beside([block.item, *interests])))


register("din", Din, DinOptions, PRESETS, lambda options: Reads(first_order=False))
