"""The trunk that every architecture and both heads share: embedding tables, pooled lists, normalised numbers and crosses.

It is built from the feature spec alone. Its input is what the encoder gives (`encoded.<f>` and `raw.<f>`, see
data_exchange_center/encoder.py); its output is `Assembled`, which an architecture turns into a logit. Numbers (crosses included)
hold nothing that learns, so training computes them once per row and hands them in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from data_exchange_center.encoder import ENCODED, LIMIT, RAW
from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.vocabulary import PADDING, UNKNOWN
from offline.models import crosses
from offline.models.layers import Sides, mask_of, mean_weights, pool, root_weights

Head = Literal["like", "choose"]
HEADS: tuple[Head, ...] = ("like", "choose")


class Sequence(NamedTuple):
    """The elements of a list of the user's, for an architecture that pools them by the item at hand.

    Attributes:
        elements: [*u, L, d]. mask: [*u, L], 1 for elements and 0 for padding.
        weights: [*u, L], the value that goes with each element (liked or not), where the feature declares one.
        target: [*i, d], the item's embedding from the same table.
    """

    elements: Tensor
    mask: Tensor
    weights: Tensor | None
    target: Tensor


class Assembled(NamedTuple):
    """What an architecture reads. A field is one embedding vector, of whatever size the trunk gave its feature.

    Attributes:
        user_fields, item_fields: [*u, d_f] and [*i, d_f] each, in the order of the trunk's sizes.
        first_order: sums of one-dimensional weights of all ids, ([*u], [*i]).
        numbers: normalised numbers and crosses, ([*u, n], [*i, m]).
        vectors: dense vectors, ([*u, v], [*i, w]); either may be empty.
        sequences: lists of the user's that hold what the item side's own feature holds; their pooled forms are fields too.
    """

    user_fields: list[Tensor]
    item_fields: list[Tensor]
    first_order: tuple[Tensor, Tensor]
    numbers: Sides
    vectors: Sides
    sequences: tuple[Sequence, ...] = ()


@dataclass(frozen=True)
class Shape:
    """Sizes that an architecture is built from.

    Attributes:
        user_fields, item_fields: embedding size of each field.
        user_numbers, item_numbers, user_vectors, item_vectors: widths of the two sides.
        sequences: (embedding size, whether its elements have weights) of each.
    """

    user_fields: tuple[int, ...]
    item_fields: tuple[int, ...]
    user_numbers: int
    item_numbers: int
    user_vectors: int
    item_vectors: int
    sequences: tuple[tuple[int, bool], ...] = ()


@dataclass(frozen=True)
class Reads:
    """What an architecture reads of the trunk, which holds nothing that learns beyond that.

    Attributes:
        embedding_size: (fields of the scene, declared size) -> size of a feature's embedding; 0: it gets none.
        first_order: whether every id has a one-dimensional weight.
    """

    embedding_size: Callable[[int, int], int] = lambda fields, declared: declared
    first_order: bool = True


class Trunk(nn.Module):
    """Embeddings and numbers of one scene.

    Args:
        spec: the scene's features.
        rows: embedding rows by the feature that owns the table (encoder.embedding_rows).
        unknown_rate: share of ids (of key features) that training replaces by UNK, so that UNK has learned something when
            a user or an item comes that the fit never saw.
        reads: what the architecture on top needs.

    Raises:
        SpecError: a feature cannot be built; it is named.
    """

    def __init__(
        self, spec: FeatureSpec, rows: Mapping[str, int], unknown_rate: float = 0.02, reads: Reads | None = None
    ) -> None:
        super().__init__()
        for cross in spec.crosses:
            crosses.check(cross)
        self.spec = spec
        self.unknown_rate = unknown_rate
        self.sides = _sides(spec)
        self.embedded = [feature for feature in spec.inputs if feature.embedding and not feature.cross_only]
        reads = reads or Reads()
        fields = sum(2 if feature.weights else 1 for feature in self.embedded)
        self.sizes = {feature.name: reads.embedding_size(fields, feature.embedding) for feature in self.embedded}
        self.targets = {
            feature.name: spec.vocabulary_of(feature).name for feature in self.embedded if self._has_target(feature)
        }
        self.tables = nn.ModuleDict()
        self.weights = nn.ModuleDict()  # first order: one number an id
        for feature in self.embedded:
            owner = spec.vocabulary_of(feature)
            if owner.embedding != feature.embedding:
                raise SpecError(
                    f"feature {feature.name!r} shares a table and must have its embedding size", field=feature.name
                )
            if owner.name not in self.tables and self.sizes[feature.name]:
                self.tables[owner.name] = _table(rows[owner.name], self.sizes[feature.name], 0.05)
            if owner.name not in self.weights and reads.first_order and feature.type != "sequence":
                self.weights[owner.name] = _table(rows[owner.name], 1, 0.0)
        columns = self.number_columns("like") + [
            n for n in self.number_columns("choose") if n not in self.number_columns("like")
        ]
        self.all_numbers = columns
        self.means: Tensor
        self.deviations: Tensor
        self.register_buffer("means", torch.zeros(len(columns)))
        self.register_buffer("deviations", torch.ones(len(columns)))

    def number_columns(self, head: Head) -> list[str]:
        """Names of the numbers that a head reads: the user's side first, then the item's and the pair's."""
        named = [
            feature
            for feature in self.spec.features
            if (feature.entity == "cross" or _is_number(feature)) and head in feature.heads
        ]
        ordered = [feature for feature in named if self.sides[feature.name] == "user"]
        return [feature.name for feature in [*ordered, *(other for other in named if other not in ordered)]]

    def vector_columns(self, side: str) -> list[Feature]:
        """Dense vectors of one side that the network reads."""
        return [
            feature
            for feature in self.spec.inputs
            if feature.type == "dense_vector"
            and not feature.cross_only
            and (self.sides[feature.name] == "user") == (side == "user")
        ]

    def shape(self, head: Head) -> Shape:
        """Sizes of what `assemble` gives for a head."""
        columns = self.number_columns(head)
        user = sum(self.sides[name] == "user" for name in columns)
        fields: dict[str, list[int]] = {"user": [], "item": []}
        for feature in self.embedded:
            if self.sizes[feature.name]:
                fields[self.sides[feature.name]] += [self.sizes[feature.name]] * (2 if feature.weights else 1)
        return Shape(
            tuple(fields["user"]),
            tuple(fields["item"]),
            user,
            len(columns) - user,
            sum(feature.length for feature in self.vector_columns("user")),
            sum(feature.length for feature in self.vector_columns("item")),
            tuple(
                (self.sizes[feature.name], bool(feature.weights))
                for feature in self.embedded
                if feature.name in self.targets and self.sizes[feature.name]
            ),
        )

    def values(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every number before normalisation, by name: encoded inputs and crosses."""
        known = {name.removeprefix(RAW): tensor for name, tensor in inputs.items() if name.startswith(RAW)}
        for cross in self.spec.crosses:
            if all(name in known for name in cross.cross.inputs):  # type: ignore[union-attr]
                known[cross.name] = crosses.compute(cross, known)
        encoded = {
            feature.name: inputs[ENCODED + feature.name]
            for feature in self.spec.inputs
            if _is_number(feature) and ENCODED + feature.name in inputs
        }
        return {**known, **encoded}

    def numbers(self, inputs: Mapping[str, Tensor], head: Head) -> Sides:
        """Normalised numbers of a head, ([*u, n], [*i, m])."""
        return self.normalised(self.values(inputs), head)

    def normalised(self, values: Mapping[str, Tensor], head: Head) -> Sides:
        """Stacks a head's numbers per side, normalised by the fit's statistics and bounded at LIMIT deviations."""
        columns = self.number_columns(head)
        parts = []
        for side in ("user", "item"):
            names = [name for name in columns if self.sides[name] == side]
            if not names:
                parts.append(torch.zeros(1, 0))
                continue
            stacked = torch.stack(torch.broadcast_tensors(*(values[name] for name in names)), -1)
            place = [self.all_numbers.index(name) for name in names]
            parts.append(((stacked - self.means[place]) / self.deviations[place]).clamp(-LIMIT, LIMIT))
        return Sides(parts[0], parts[1])

    def assemble(self, inputs: Mapping[str, Tensor], numbers: Sides) -> Assembled:
        """Looks up, pools and gathers everything for a head's architecture."""
        fields: dict[str, list[Tensor]] = {"user": [], "item": []}
        first: dict[str, list[Tensor]] = {"user": [], "item": []}
        single: dict[str, Tensor] = {}
        lists: list[tuple[Feature, Tensor, Tensor]] = []
        for feature in self.embedded:
            side, table = self.sides[feature.name], self.spec.vocabulary_of(feature).name
            ids = inputs[ENCODED + feature.name]
            if feature.key:
                ids = self._sometimes_unknown(ids)
            if table in self.weights and feature.type != "sequence":
                first[side].append(self._first_order(table, ids, feature.is_list))
            if table not in self.tables:
                continue
            vectors = self.tables[table](ids)
            if not feature.is_list:
                fields[side].append(vectors)
                single[feature.name] = vectors
                continue
            mask = mask_of(ids)
            weights = mean_weights(mask) if feature.type == "multi_categorical" else root_weights(mask)
            fields[side].append(pool(vectors, weights))
            if feature.weights:
                fields[side].append(pool(vectors, weights * inputs[RAW + feature.weights]))
            lists.append((feature, vectors, mask))
        return Assembled(
            fields["user"],
            fields["item"],
            (_total(first["user"], numbers.user), _total(first["item"], numbers.item)),
            numbers,
            Sides(self._vectors(inputs, "user", numbers.user), self._vectors(inputs, "item", numbers.item)),
            tuple(
                Sequence(
                    vectors,
                    mask,
                    inputs[RAW + feature.weights] if feature.weights else None,
                    single[self.targets[feature.name]],
                )
                for feature, vectors, mask in lists
                if feature.name in self.targets
            ),
        )

    def _first_order(self, table: str, ids: Tensor, is_list: bool) -> Tensor:
        weights = self.weights[table](ids)
        return (pool(weights, mean_weights(mask_of(ids))) if is_list else weights).squeeze(-1)

    def _has_target(self, feature: Feature) -> bool:
        """Whether a list of the user's holds what one feature of the item side is, such as the items that were seen before."""
        owner = self.spec.vocabulary_of(feature)
        of_user = feature.type == "sequence" and self.sides[feature.name] == "user"
        return of_user and self.sides[owner.name] == "item" and owner in self.embedded and not owner.is_list

    def _vectors(self, inputs: Mapping[str, Tensor], side: str, like: Tensor) -> Tensor:
        tensors = [inputs[ENCODED + feature.name] for feature in self.vector_columns(side)]
        return torch.cat(tensors, -1) if tensors else like[..., :0]

    def _sometimes_unknown(self, ids: Tensor) -> Tensor:
        if not self.training or self.unknown_rate == 0:
            return ids
        return torch.where(torch.rand(ids.shape) < self.unknown_rate, UNKNOWN, ids)


def _is_number(feature: Feature) -> bool:
    """Whether an input enters the network as one number."""
    return feature.type == "numeric" and feature.entity != "cross" and not feature.cross_only and not feature.embedding


def _sides(spec: FeatureSpec) -> dict[str, str]:
    """feature -> "user" (one value a request) or "item" (one a candidate); a cross is on the user's side if all its inputs are."""
    sides: dict[str, str] = {}
    for feature in spec.features:
        if feature.cross is not None:
            sides[feature.name] = "user" if all(sides[name] == "user" for name in feature.cross.inputs) else "item"
        else:
            sides[feature.name] = "user" if feature.entity in ("user", "context") else "item"
    return sides


def _table(rows: int, size: int, deviation: float) -> nn.Embedding:
    table = nn.Embedding(rows, size, padding_idx=PADDING)
    with torch.no_grad():
        nn.init.normal_(table.weight, std=deviation) if deviation else nn.init.zeros_(table.weight)
        table.weight[PADDING] = 0
    return table


def _total(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(tensors, -1).sum(-1) if tensors else like.new_zeros(like.shape[:-1])
