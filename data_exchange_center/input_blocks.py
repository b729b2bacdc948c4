"""How a released graph takes its raw features: the values of one entity and dtype side by side in one matrix.

    user.float32   [1, n]     item.string    [N, n]     candidate.float32   [N, n]     context.int64   [1, 1]     ...

Keys (`user_id`, `item_id`), which come from the request and from recall, stay inputs of their own, [1] and [N]. A request hands
over a dozen arrays instead of one per feature, and item features can be kept, and taken for the candidates, as whole rows. The
layout follows from the feature spec: scalars that crosses read first, then scalars that are numbers of the network, then other
scalars, then lists; each in declared order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.encoded_matrices import is_number
from data_exchange_center.encoder import raw_inputs
from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import Entity, Feature, FeatureSpec
from data_exchange_center.raw_columns import NUMPY
from data_exchange_center.release import Release

ENTITIES: tuple[Entity, ...] = ("user", "context", "item", "candidate")
DTYPES = ("float32", "int64", "string")


@dataclass(frozen=True)
class InputBlock:
    """One input of the graph.

    Attributes:
        name: `<entity>.<dtype>`, or the feature's for a key.
        features: in the order of their columns; a key alone.
        is_key: the input is the key itself, without columns.
    """

    name: str
    entity: Entity
    dtype: str
    features: tuple[Feature, ...]
    is_key: bool = False

    @property
    def per_candidate(self) -> bool:
        """Whether it has a row per candidate; else one row."""
        return self.entity in ("item", "candidate")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of its features."""
        return tuple(feature.name for feature in self.features)

    @property
    def width(self) -> int:
        """Columns."""
        return sum(widths(self.features))

    def pack(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """[n] and [n, length] arrays by feature -> [n, width]; a key as it is.

        Raises:
            DataError: a feature is missing.
        """
        absent = [feature.name for feature in self.features if feature.name not in columns]
        if absent:
            raise DataError(f"feature {absent[0]!r} was not delivered", field=absent[0])
        if self.is_key:
            return columns[self.features[0].name]
        parts = [columns[feature.name] for feature in self.features]
        made = np.empty((len(parts[0]), self.width), NUMPY[self.dtype])
        start = 0
        for part, width in zip(parts, widths(self.features), strict=True):
            made[:, start : start + width] = part if part.ndim == 2 else part[:, None]
            start += width
        return made

    def columns(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """What `pack` packed, as views: [n] or [n, length] by feature."""
        if self.is_key:
            return {self.features[0].name: matrix}
        made, start = {}, 0
        for feature, width in zip(self.features, widths(self.features), strict=True):
            made[feature.name] = matrix[:, start : start + width] if feature.is_list else matrix[:, start]
            start += width
        return made


def widths(features: Sequence[Feature]) -> list[int]:
    """Columns of each feature: its length, 1 for a scalar."""
    return [feature.length if feature.is_list else 1 for feature in features]


def input_blocks(spec: FeatureSpec, id_types: tuple[str, str]) -> list[InputBlock]:
    """The inputs of a scene's released graph, without empty ones.

    Args:
        id_types: dtypes of user and item ids, as the log declares them.
    """
    made = []
    for entity in ENTITIES:
        features = [feature for feature in spec.inputs if feature.entity == entity]
        for key in (feature for feature in features if feature.key):
            made.append(InputBlock(key.name, entity, spec.dtype_of(key, *id_types), (key,), is_key=True))
        for dtype in DTYPES:
            here = [f for f in in_block_order(spec, features) if not f.key and spec.dtype_of(f, *id_types) == dtype]
            if here:
                made.append(InputBlock(f"{entity}.{dtype}", entity, dtype, tuple(here)))
    return made


def in_block_order(spec: FeatureSpec, features: Iterable[Feature]) -> list[Feature]:
    """Features of one entity in the order in which those of one dtype lie in its blocks."""
    raw = {feature.name for feature in raw_inputs(spec)}
    return sorted(features, key=lambda feature: (feature.is_list, feature.name not in raw, not is_number(feature)))


def pack_inputs(blocks: Sequence[InputBlock], columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Raw features by name -> the graph's inputs; without blocks those features themselves."""
    if not blocks:
        return dict(columns)
    return {block.name: block.pack(columns) for block in blocks}


def unpack_inputs(blocks: Sequence[InputBlock], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The graph's inputs -> raw features by name, as views; without blocks they are that already."""
    if not blocks:
        return dict(inputs)
    return {name: column for block in blocks for name, column in block.columns(inputs[block.name]).items()}


def id_types_of(release: Release) -> tuple[str, str]:
    """Dtypes of a chain's user and item ids, `int64` or `string`."""
    kinds = [
        release.table(table, [key]).schema.field(key).type
        for table, key in (("users", c.USER_ID), ("items", c.ITEM_ID))
    ]
    user, item = ("string" if pa.types.is_string(kind) else "int64" for kind in kinds)
    return user, item


def blocks_of_release(release: Release) -> list[InputBlock]:
    """The blocks that a chain's graph takes; none when it takes features by name (`packed_inputs` of the manifest)."""
    packed = release.manifest.get("packed_inputs", False)
    return input_blocks(release.spec(), id_types_of(release)) if packed else []
