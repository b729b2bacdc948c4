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

from torch import Tensor, nn

from offline.models.fields_by_id import FieldsById
from offline.models.inputs import FmPooling, LinearTerm, beside, flat_beside_ids, flat_sizes
from offline.models.layers import Mlp, Sides
from offline.models.option_types import Dropout, Width, Widths
from offline.models.registry import register
from offline.models.trunk import Assembled, Reads, Shape


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

    fm_size: Width = 16
    hidden: Widths = (64, 32)
    dropout: Dropout = 0.1
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
        self.pairs = FmPooling(shape, options.fm_size, options.numbers_in_fm)
        self.linear = LinearTerm(shape, numbers=options.linear_numbers, vectors=False)
        user, item = flat_sizes(shape, **self._deep_blocks())
        self.mlp = Mlp(user, item + options.deep_fm * options.fm_size, options.hidden, options.dropout)
        if options.vectors == "beside":
            self.beside = Mlp(shape.user_vectors, shape.item_vectors, options.hidden[-1:], options.dropout)

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        pooled, inputs = self.pairs.beside(inputs)  # [*i, fm_size]
        logit = self.linear(inputs) + pooled.sum(-1) + self.mlp(*self._deep(inputs, pooled))
        if self.options.vectors == "beside":
            logit = logit + self.beside(inputs.vectors)
        return logit

    def _deep(self, inputs: Assembled, pooled: Tensor) -> tuple[Sides, FieldsById | None]:
        (user, item), by_id = flat_beside_ids(inputs, **self._deep_blocks())
        return Sides(user, beside([item, pooled]) if self.options.deep_fm else item), by_id

    def _deep_blocks(self) -> dict[str, bool]:
        """What the MLP reads, as switches of `flat`."""
        return {
            "fields": self.options.deep_inputs != "dense",
            "numbers": self.options.deep_inputs != "embeddings",
            "vectors": self.options.vectors == "deep",
        }


register("deepfm", DeepFm, DeepFmOptions, PRESETS, lambda options: Reads(by_id=True))
