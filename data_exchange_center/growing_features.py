"""Which features of a run grow: their ids get rows of the embedding table as training sees them.

In training such ids go through the encoder as they are (policy `raw`) and offline/models/growing.py knows their rows. Afterwards
the ids that own a row are a vocabulary like any learned one (policy `learned`), and nothing else knows that it grew. A missing id
travels as the feature's `default` and grows as any other id does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_selection import chosen_names
from data_exchange_center.feature_spec import Feature, FeatureSpec


def growing_owners(spec: FeatureSpec, patterns: Sequence[str]) -> list[str]:
    """The features whose vocabularies grow, in declared order; one that shares another's vocabulary makes that one grow.

    Args:
        patterns: as feature_selection.selected has them; features without a vocabulary are passed over. None: nothing grows.

    Raises:
        SpecError: a pattern that fits nothing, nothing with a vocabulary fits, or ids that are no int64; the feature is named.
    """
    if not patterns:
        return []
    chosen = chosen_names(spec, patterns)
    fits = [feature for feature in spec.features if feature.name in chosen and feature.vocabulary and feature.embedding]
    if not fits:
        raise SpecError(
            f"embeddings.grow {list(patterns)}: no feature with a vocabulary fits; ids grow, numbers do not",
            field="embeddings.grow",
        )
    for feature in fits:
        if feature.dtype != "int64" or feature.is_list:
            held = f"lists of {feature.dtype}" if feature.is_list else feature.dtype
            raise SpecError(
                f"embeddings.grow: feature {feature.name!r} holds {held}, and only single int64 ids grow; "
                f"leave it out by -{feature.name}, or give text ids `dtype: int64, hash: true`",
                field="embeddings.grow",
            )
    owners = {spec.vocabulary_of(feature).name for feature in fits}
    return [feature.name for feature in spec.features if feature.name in owners]


def with_policy(spec: FeatureSpec, owners: Collection[str], policy: Literal["raw", "learned"]) -> FeatureSpec:
    """The spec with the vocabularies of these features of that policy."""

    def changed(feature: Feature) -> Feature:
        if feature.name not in owners or feature.vocabulary is None:
            return feature
        return feature.model_copy(update={"vocabulary": feature.vocabulary.model_copy(update={"policy": policy})})

    return FeatureSpec(scene=spec.scene, folds=spec.folds, features=[changed(feature) for feature in spec.features])


def raw_owners(spec: FeatureSpec) -> list[str]:
    """Owners of vocabularies whose ids go through the encoder as they are."""
    return [f.name for f in spec.features if f.vocabulary and f.vocabulary.policy == "raw" and not f.vocabulary.share]
