"""The trunk that every architecture and both heads share: embedding tables, pooled lists, normalised numbers and crosses.

It is built from the feature spec alone. Its input is what the encoder gives, value by value (`encoded.<f>` and `raw.<f>`, see
data_exchange_center/encoder.py) or in matrices (data_exchange_center/encoded_matrices.py); its output is `Assembled`, which an
architecture turns into a logit. Numbers (crosses included) hold nothing that learns, so training computes them once per row and
hands them in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data_exchange_center.encoded_matrices import IDS, SIDES, Side, matrices
from data_exchange_center.encoder import ENCODED, RAW
from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.vocabulary import UNKNOWN
from offline.models import crosses
from offline.models.columns import taken
from offline.models.fields_by_id import FieldsById, fields_by_id
from offline.models.kernels import sum_of_fields
from offline.models.layers import Sides, mask_of
from offline.models.numbers import Head, Numbers
from offline.models.tables import EmbeddingTables

WIDEST = 1e3  # numbers that enter as they come, weights of lists and dense vectors, saturate here: products of many stay finite


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


@dataclass(frozen=True)
class Fields:
    """The embedding vectors of one side, [*, fields, size]: those of one size in one block. A side may have none.

    Attributes:
        given: the blocks. by_id: the only block in the form that training may hand to an architecture which asks for it.
    """

    given: tuple[Tensor, ...]
    by_id: FieldsById | None = None

    @property
    def blocks(self) -> tuple[Tensor, ...]:
        """The blocks, whatever their form."""
        return self.given if self.by_id is None else (self.by_id.apart(),)

    def flat(self) -> list[Tensor]:
        """Each block's vectors side by side, [*, fields * size]."""
        return [block.flatten(-2) for block in self.blocks]


class Assembled(NamedTuple):
    """What an architecture reads. A field is one embedding vector, of whatever size the trunk gave its feature.

    Attributes:
        user_fields, item_fields: vectors of each side, in the order of the shape's sizes.
        first_order: sums of one-dimensional weights of all ids, ([*u], [*i]).
        numbers: normalised numbers and crosses, ([*u, n], [*i, m]).
        vectors: dense vectors, ([*u, v], [*i, w]); either may be empty.
        sequences: lists of the user's that hold what the item side's own feature holds; their pooled forms are fields too.
    """

    user_fields: Fields
    item_fields: Fields
    first_order: tuple[Tensor, Tensor]
    numbers: Sides
    vectors: Sides
    sequences: tuple[Sequence, ...] = ()


@dataclass(frozen=True)
class Shape:
    """Sizes that an architecture is built from.

    Attributes:
        user_fields, item_fields: embedding size of each field; equal ones follow each other and are one block of `Fields`.
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
        by_id: whether it knows what to do with `Fields.by_id`.
    """

    embedding_size: Callable[[int, int], int] = lambda fields, declared: declared
    first_order: bool = True
    by_id: bool = False


@dataclass(frozen=True)
class Block:
    """The fields of one side that have one embedding size: single ids, then pooled lists. Of size 0: weights alone."""

    size: int
    singles: tuple[Feature, ...]
    lists: tuple[Feature, ...]

    @property
    def fields(self) -> int:
        """How many vectors it gives: a list with weights gives two."""
        return len(self.singles) + sum(2 if feature.weights else 1 for feature in self.lists)


class Trunk(nn.Module):
    """Embeddings and numbers of one scene.

    Args:
        spec: the scene's features.
        rows: embedding rows by the feature that owns the table (encoder.embedding_rows).
        unknown_rate: share of ids (of key features and of growing vocabularies) that training replaces by UNK, so that UNK has
            learned something when an id comes that the fit never saw.
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
        self.spec, self.unknown_rate, self.reads = spec, unknown_rate, reads or Reads()
        self.numbers_of = Numbers(spec)
        self.embedded = [feature for feature in spec.encoded if feature.embedding]
        fields = sum(2 if feature.weights else 1 for feature in self.embedded)
        self.sizes = {f.name: self.reads.embedding_size(fields, f.embedding) for f in self.embedded}
        self.targets = {f.name: self._owner(f) for f in self.embedded if self.sizes[f.name] and self._has_target(f)}
        self.tables = EmbeddingTables(self._owners(rows), first_order=self.reads.first_order)
        self.id_matrices = {matrix.side: matrix for matrix in matrices(spec, ()) if matrix.kind == IDS}
        self.blocks = {side: self._blocks(side) for side in SIDES}

    @property
    def sides(self) -> dict[str, Side]:
        """feature -> its side."""
        return self.numbers_of.sides

    @property
    def all_numbers(self) -> list[str]:
        """Every number, in the order of `means` and `deviations`."""
        return self.numbers_of.all_names

    @property
    def means(self) -> Tensor:
        """What is subtracted from the numbers; part of the network's state."""
        return self.numbers_of.means

    @property
    def deviations(self) -> Tensor:
        """What the numbers are divided by; part of the network's state."""
        return self.numbers_of.deviations

    def number_columns(self, head: Head) -> list[str]:
        """Names of the numbers that a head reads: the user's side first, then the item's and the pair's."""
        return [name for side in SIDES for name in self.numbers_of.columns(head, side)]

    def vector_columns(self, side: str) -> list[Feature]:
        """Dense vectors of one side that the network reads."""
        return [
            feature
            for feature in self.spec.encoded
            if feature.type == "dense_vector" and self.sides[feature.name] == side
        ]

    def shape(self, head: Head) -> Shape:
        """Sizes of what `assemble` gives for a head."""
        fields = {
            side: tuple(block.size for block in self.blocks[side] for _ in range(block.fields) if block.size)
            for side in SIDES
        }
        return Shape(
            fields["user"],
            fields["item"],
            len(self.numbers_of.columns(head, "user")),
            len(self.numbers_of.columns(head, "item")),
            sum(feature.length for feature in self.vector_columns("user")),
            sum(feature.length for feature in self.vector_columns("item")),
            tuple((self.sizes[name], bool(self.spec[name].weights)) for name in self.targets),
        )

    def values(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every number before normalisation, by name; see `Numbers.values`."""
        return self.numbers_of.values(inputs)

    def normalised(self, values: Mapping[str, Tensor], head: Head) -> Sides:
        """A head's numbers from their values; see `Numbers.normalised`."""
        return self.numbers_of.normalised(values, head)

    def numbers(self, inputs: Mapping[str, Tensor]) -> dict[Head, Sides]:
        """Normalised numbers of each head, ([*u, n], [*i, m])."""
        made: dict[Head, Sides] = self.numbers_of(inputs)
        return made

    def assemble(self, inputs: Mapping[str, Tensor], numbers: Sides) -> Assembled:
        """Looks up, pools and gathers everything for a head's architecture."""
        user, item = (self._side(inputs, side) for side in SIDES)
        vectors = Sides(self._vectors(inputs, "user", numbers.user), self._vectors(inputs, "item", numbers.item))
        sequences = tuple(
            Sequence(*user.elements[name], self._weights(inputs, self.spec[name]), item.singles[target])
            for name, target in self.targets.items()
        )
        return Assembled(user.fields, item.fields, (user.weight, item.weight), numbers, vectors, sequences)

    def _side(self, inputs: Mapping[str, Tensor], side: Side) -> _Side:
        rows = self._rows(inputs, side)
        by_id = self._by_id(rows, side)
        if by_id is not None:
            return _Side(Fields((), by_id), by_id.sums.weights.sum(-1), {}, {})
        blocks, weights = list[Tensor](), list[Tensor]()
        singles, elements = dict[str, Tensor](), dict[str, tuple[Tensor, Tensor]]()
        for block in self.blocks[side]:
            parts = []
            if block.singles and rows is not None:
                names = [feature.name for feature in block.singles]
                found, weight = self.tables.look_up(block.size, taken(rows, self._columns(block, side)))
                parts.append(found)
                weights.append(weight.sum((-2, -1)))
                singles |= {name: found[..., n, :] for n, name in enumerate(names) if name in self.targets.values()}
            for feature in block.lists:
                found, weight, mask = self._elements(inputs, feature)
                parts.append(self._pooled(inputs, feature, found, mask))
                if feature.type == "multi_categorical":
                    length = mask.sum(-1).clamp(min=1.0) if feature.combiner == "mean" else 1.0
                    weights.append(weight.sum((-2, -1)) / length)
                elements[feature.name] = found, mask
            if block.size:
                blocks.append(parts[0] if len(parts) == 1 else torch.cat(parts, -2))
        weight = sum(weights[1:], weights[0]) if weights else self.means.new_zeros(1)
        return _Side(Fields(tuple(blocks)), weight, singles, elements)

    def _by_id(self, rows: Tensor | None, side: Side) -> FieldsById | None:
        """A side that is nothing but single ids of one embedding size, which the architecture reads in no other way."""
        if rows is None or not self.reads.by_id or len(self.blocks[side]) != 1 or self.targets:
            return None
        (block,) = self.blocks[side]
        if block.lists or not block.size:
            return None
        return fields_by_id(taken(rows, self._columns(block, side)), partial(self.tables.look_up, block.size))

    def _columns(self, block: Block, side: Side) -> list[int]:
        """Places of a block's single ids in the side's matrix."""
        return [self.id_matrices[side].features.index(feature.name) for feature in block.singles]

    def _rows(self, inputs: Mapping[str, Tensor], side: Side) -> Tensor | None:
        """Rows of the tables for the single-valued ids of a side, [*, F]; None when it has none."""
        matrix = self.id_matrices.get(side)
        if matrix is None:
            return None
        if matrix.name in inputs:
            ids = inputs[matrix.name]
        else:
            ids = torch.stack([inputs[ENCODED + name] for name in matrix.features], -1)
        features = [self.spec[name] for name in matrix.features]
        owners = [self._owner(feature) for feature in features]
        keys = [
            (feature.key or self._has_free_ids(owner)) and not self.tables.grows(owner)
            for feature, owner in zip(features, owners, strict=True)
        ]
        return self.tables.rows(self._sometimes_unknown(ids, keys), owners)

    def _sometimes_unknown(self, ids: Tensor, keys: list[bool]) -> Tensor:
        """In training, some ids of these columns become UNK; [*, F]."""
        if not self.training or self.unknown_rate == 0 or not any(keys):
            return ids
        drawn = torch.rand(ids.shape, device=ids.device) < self.unknown_rate
        return torch.where(drawn & torch.tensor(keys, device=ids.device), UNKNOWN, ids)

    def _elements(self, inputs: Mapping[str, Tensor], feature: Feature) -> tuple[Tensor, Tensor, Tensor]:
        """A list's vectors [*, L, d], first-order weights [*, L, 1] and mask [*, L]. What padding looks up is zero."""
        ids = inputs[ENCODED + feature.name]
        vectors, weights = self.tables.look_up(self.sizes[feature.name], self.tables.rows(ids, [self._owner(feature)]))
        return vectors, weights, mask_of(ids)

    def _pooled(self, inputs: Mapping[str, Tensor], feature: Feature, vectors: Tensor, mask: Tensor) -> Tensor:
        """A list as one vector, or two when its elements have weights: [*, 1 or 2, d].

        The mean or the sum of a set, as its combiner says. Of a sequence the sum over the root of one more than its length: short
        ones, which say little, stay small; and the same with the elements weighted.
        """
        length = mask.sum(-1)[..., None, None]
        if feature.combiner == "sum":
            return sum_of_fields(vectors).unsqueeze(-2)
        if feature.type == "multi_categorical":
            return sum_of_fields(vectors).unsqueeze(-2) / length.clamp(min=1.0)
        weights = self._weights(inputs, feature)
        if weights is None:
            return sum_of_fields(vectors).unsqueeze(-2) / torch.sqrt(length + 1.0)
        return torch.matmul(torch.stack((mask, weights), -2), vectors) / torch.sqrt(length + 1.0)

    def _weights(self, inputs: Mapping[str, Tensor], feature: Feature) -> Tensor | None:
        """The value that goes with each element of a list, [*, L]; None where the feature declares none."""
        return inputs[RAW + feature.weights].clamp(-WIDEST, WIDEST) if feature.weights else None

    def _vectors(self, inputs: Mapping[str, Tensor], side: Side, like: Tensor) -> Tensor:
        tensors = [inputs[ENCODED + feature.name] for feature in self.vector_columns(side)]
        if not tensors:
            return like[..., :0]
        return (tensors[0] if len(tensors) == 1 else torch.cat(tensors, -1)).clamp(-WIDEST, WIDEST)

    def _has_free_ids(self, owner: str) -> bool:
        policy = self.spec[owner].vocabulary
        return policy is not None and policy.policy == "growing"

    def _owner(self, feature: Feature) -> str:
        return self.spec.vocabulary_of(feature).name

    def _owners(self, rows: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """owner -> (ids, embedding size) of the tables that the architecture reads."""
        owners: dict[str, tuple[int, int]] = {}
        for feature in self.embedded:
            owner = self.spec.vocabulary_of(feature)
            if owner.embedding != feature.embedding:
                raise SpecError(
                    f"feature {feature.name!r} shares a table and must have its embedding size", field=feature.name
                )
            if self._is_read(feature):
                owners[owner.name] = (rows[owner.name], self.sizes[feature.name])
        return owners

    def _is_read(self, feature: Feature) -> bool:
        return bool(self.sizes[feature.name]) or (self.reads.first_order and feature.type != "sequence")

    def _has_target(self, feature: Feature) -> bool:
        """Whether a list of the user's holds what one feature of the item side is, such as the items that were seen before."""
        owner = self.spec.vocabulary_of(feature)
        of_user = feature.type == "sequence" and self.sides[feature.name] == "user"
        return of_user and self.sides[owner.name] == "item" and owner in self.embedded and not owner.is_list

    def _blocks(self, side: Side) -> tuple[Block, ...]:
        read = [feature for feature in self.embedded if self.sides[feature.name] == side and self._is_read(feature)]
        singles, lists = [f for f in read if not f.is_list], [f for f in read if f.is_list]
        return tuple(
            Block(
                size,
                tuple(feature for feature in singles if self.sizes[feature.name] == size),
                tuple(feature for feature in lists if self.sizes[feature.name] == size),
            )
            for size in dict.fromkeys(self.sizes[feature.name] for feature in [*singles, *lists])
        )


class _Side(NamedTuple):
    """What one side looks up: fields, sum of first-order weights [*], vectors of single ids and elements of lists by name."""

    fields: Fields
    weight: Tensor
    singles: dict[str, Tensor]
    elements: dict[str, tuple[Tensor, Tensor]]
