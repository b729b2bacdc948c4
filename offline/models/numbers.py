"""The numbers that a network reads: encoded ones as they come, crosses computed from raw values, all normalised by the fit.

Scalars lie side by side in matrices and crosses of one kind are computed together, so that the exported graph has few nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from data_exchange_center.encoded_matrices import (
    FLOATS,
    IDS,
    MOMENTS,
    NUMBERS,
    SIDES,
    Side,
    is_number,
    matrices,
    side_of,
)
from data_exchange_center.encoder import ENCODED, LIMIT, RAW, raw_inputs
from data_exchange_center.feature_spec import FeatureSpec
from offline.models.columns import Columns
from offline.models.crosses import Group, groups
from offline.models.layers import Sides

Head = Literal["like", "choose"]
HEADS: tuple[Head, ...] = ("like", "choose")


class Numbers(nn.Module):
    """Numbers of one scene.

    Attributes:
        sides: feature -> its side; a cross is on the user's if all its inputs are.
        all_names: every number: the user's side first; on each side, what all heads read before what one head reads.
        means, deviations: the normalisation, in that order.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        self.sides = _sides(spec)
        self.matrices = [m for m in matrices(spec, [f.name for f in raw_inputs(spec)]) if m.kind != IDS]
        self.all_names = [name for side in SIDES for name in self._of_side(side)]
        self.means: Tensor
        self.deviations: Tensor
        self.register_buffer("means", torch.zeros(len(self.all_names)))
        self.register_buffer("deviations", torch.ones(len(self.all_names)))

    def columns(self, head: Head, side: Side) -> list[str]:
        """Names of the numbers of one side that a head reads."""
        return [name for name in self.all_names if self.sides[name] == side and head in self.spec[name].heads]

    def values(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every number before normalisation, by name, [*u] or [*i] each: encoded inputs, and crosses whose inputs are there."""
        known = self._known(inputs)
        return {name: known[name] for name in self.all_names if name in known}

    def normalised(self, values: Mapping[str, Tensor], head: Head) -> Sides:
        """A head's numbers from `values`, ([*u, n], [*i, m]), normalised and bounded at LIMIT deviations."""
        known = Columns()
        for name, value in values.items():
            known.add([name], value.unsqueeze(-1))
        return Sides(*(self._normalised(known, self.columns(head, side)) for side in SIDES))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[Head, Sides]:
        """Normalised numbers of every head, ([*u, n], [*i, m]); what the heads share is computed once."""
        known, of_head = self._known(inputs), dict[Head, list[Tensor]]((head, []) for head in HEADS)
        for side in SIDES:
            names, normalised = self._of_side(side), Columns()
            normalised.add(names, self._normalised(known, names))
            for head in HEADS:
                of_head[head].append(normalised.take(self.columns(head, side)))
        return {head: Sides(user, item) for head, (user, item) in of_head.items()}

    def _of_side(self, side: Side) -> list[str]:
        named = [
            feature
            for feature in self.spec.features
            if ((feature.cross is not None and not feature.cross_only) or is_number(feature))
            and self.sides[feature.name] == side
        ]
        encoded = [name for matrix in self.matrices if matrix.kind == NUMBERS for name in matrix.features]
        crosses = [name for group in self._groups() for name in group.names]
        order = {name: place for place, name in enumerate([*encoded, *crosses])}
        named.sort(key=lambda feature: (len(feature.heads) < len(HEADS), order[feature.name]))
        return [feature.name for feature in named]

    def _groups(self) -> list[Group]:
        return groups(self.spec, self.sides, [feature.name for feature in self.spec.inputs])

    def _known(self, inputs: Mapping[str, Tensor]) -> Columns:
        """Crosses and encoded numbers as columns; a name that is both raw and encoded stands for the encoded one."""
        known, encoded, lists = Columns(), Columns(), dict[str, Tensor]()
        for matrix in self.matrices:
            prefix, into = (RAW, known) if matrix.kind in (FLOATS, MOMENTS) else (ENCODED, encoded)
            if matrix.name in inputs:
                into.add(matrix.features, inputs[matrix.name])
                continue
            there = [name for name in matrix.features if prefix + name in inputs]
            if there:
                into.add(there, torch.stack([inputs[prefix + name] for name in there], -1))
        for feature in self.spec.inputs:
            if feature.is_list and RAW + feature.name in inputs:
                lists[feature.name] = inputs[RAW + feature.name]
        for group in groups(self.spec, self.sides, [*known.names, *lists]):
            known.add(group.names, group.compute(known, lists))
        return known.updated(encoded)

    def _normalised(self, known: Columns, names: list[str]) -> Tensor:
        if not names:
            return torch.zeros(1, 0)
        places = [self.all_names.index(name) for name in names]
        taken = known.take(names)
        if places == list(range(places[0], places[0] + len(names))):
            means, deviations = (
                statistic.narrow(0, places[0], len(names)) for statistic in (self.means, self.deviations)
            )
        else:
            means, deviations = self.means[places], self.deviations[places]
        return ((taken - means) / deviations).clamp(-LIMIT, LIMIT)


def _sides(spec: FeatureSpec) -> dict[str, Side]:
    sides: dict[str, Side] = {}
    for feature in spec.features:
        if feature.cross is None:
            sides[feature.name] = side_of(feature)
        else:
            sides[feature.name] = "user" if all(sides[name] == "user" for name in feature.cross.inputs) else "item"
    return sides
