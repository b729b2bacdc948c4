"""Encoded features side by side: which scalars make one matrix between the encoder and the network, so that neither touches them
one by one.

    ids.<side>        int64 [*, F]     ids of single-valued embedded features; those of one embedding size follow each other
    numbers.<side>    float32 [*, n]   encoded numbers; those with the same transforms follow each other
    floats.<side>     float32 [*, n]   raw values that crosses read
    moments.<side>    int64 [*, n]     raw int64 values that crosses read

Sides are `user` (features of the user and of the moment) and `item` (of the item and of the candidate). Lists stay what they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from data_exchange_center.feature_operations import transform_name
from data_exchange_center.feature_spec import Feature, FeatureSpec

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = ("user", "item")
IDS, NUMBERS, FLOATS, MOMENTS = "ids", "numbers", "floats", "moments"


@dataclass(frozen=True)
class Matrix:
    """One matrix. `kind` is IDS, NUMBERS, FLOATS or MOMENTS; `features` name its columns."""

    kind: str
    side: Side
    features: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name among the network's inputs."""
        return f"{self.kind}.{self.side}"


def side_of(feature: Feature) -> Side:
    """The side of an input."""
    return "user" if feature.entity in ("user", "context") else "item"


def is_number(feature: Feature) -> bool:
    """Whether an input or a derived feature enters the network as one number."""
    return feature.type == "numeric" and feature.entity != "cross" and not feature.cross_only and not feature.embedding


def is_single_id(feature: Feature) -> bool:
    """Whether an input or a derived feature enters the network as the embedding of one id."""
    return bool(feature.embedding) and not feature.is_list and not feature.cross_only


def matrices(spec: FeatureSpec, raw: Collection[str]) -> list[Matrix]:
    """The matrices of a scene, without empty ones.

    Args:
        raw: names of the inputs that are passed on raw (encoder.raw_inputs).
    """
    made = []
    for side in SIDES:
        inputs = [feature for feature in spec.features if feature.entity != "cross" and side_of(feature) == side]
        ids = [feature for feature in inputs if is_single_id(feature)]
        sizes = list(dict.fromkeys(feature.embedding for feature in ids))
        scalars = [feature for feature in inputs if feature.name in raw and not feature.is_list]
        found = {
            IDS: sorted(ids, key=lambda feature: sizes.index(feature.embedding)),
            NUMBERS: _by_transforms([feature for feature in inputs if is_number(feature)]),
            FLOATS: [feature for feature in scalars if feature.dtype == "float32"],
            MOMENTS: [feature for feature in scalars if feature.dtype != "float32"],
        }
        made += [Matrix(kind, side, tuple(f.name for f in features)) for kind, features in found.items() if features]
    return made


def _by_transforms(features: Sequence[Feature]) -> list[Feature]:
    """Features with the same transforms side by side."""
    chains = [[transform_name(step) for step in feature.transform] for feature in features]
    order = sorted(range(len(features)), key=lambda place: chains.index(chains[place]))
    return [features[place] for place in order]
