"""What a run uses of a scene's features."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_operations import transform_name
from data_exchange_center.feature_spec import Feature, FeatureSpec


def selected(
    spec: FeatureSpec, patterns: Sequence[str], embedding: int = 0, min_frequency: int = 0, quantiles: int = 0
) -> FeatureSpec:
    """The spec of a run that uses some of the features.

    Args:
        patterns: names, or shell patterns like `c*_target`; one that starts with `-` takes features away again. They apply in
            order; when the first takes away, it starts from all features. Without any, all features are used.
        embedding: size of every embedding; those of the spec when 0.
        min_frequency: of every learned vocabulary; those of the spec when 0.
        quantiles: bins of every number that has fitted ones; those of the spec when 0.

    Returns:
        The chosen features; inputs that only derived features and crosses read are kept as `cross_only`, others are gone.

    Raises:
        SpecError: a pattern that fits no feature, nothing left, or the owner of a shared vocabulary left out.
    """
    chosen = chosen_names(spec, patterns)
    needed = set(chosen)
    for feature in reversed(spec.features):
        if feature.name in needed:
            needed |= set(feature.cross.inputs if feature.cross else feature.derive.inputs if feature.derive else [])
            needed |= {feature.weights} - {""}
    kept = [
        _kept(feature, feature.name in chosen, embedding, min_frequency, quantiles)
        for feature in spec.features
        if feature.name in needed
    ]
    try:
        return FeatureSpec(scene=spec.scene, folds=spec.folds, features=kept)
    except ValidationError as error:
        raise SpecError(f"scene {spec.scene}: features {list(patterns)}: {error.errors()[0]['msg']}") from error


def chosen_names(spec: FeatureSpec, patterns: Sequence[str]) -> set[str]:
    """Names of the features that fit, see `selected`; SpecError for a pattern that fits none."""
    names = [feature.name for feature in spec.features]
    chosen = set(names) if not patterns or patterns[0].startswith("-") else set()
    for pattern in patterns:
        fits = _fitting(spec, pattern.removeprefix("-"), names)
        chosen = chosen - fits if pattern.startswith("-") else chosen | fits
    return chosen


def _fitting(spec: FeatureSpec, pattern: str, names: list[str]) -> set[str]:
    fits = {name for name in names if fnmatchcase(name, pattern)}
    if not fits:
        near = get_close_matches(pattern, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SpecError(f"scene {spec.scene}: no feature fits {pattern!r}{hint}", field=pattern)
    return fits


def _kept(feature: Feature, chosen: bool, embedding: int, min_frequency: int, quantiles: int) -> Feature:
    changes: dict[str, Any] = {} if chosen else {"cross_only": True}
    if embedding and feature.embedding:
        changes["embedding"] = embedding
    if min_frequency and feature.vocabulary and feature.vocabulary.policy == "learned":
        changes["vocabulary"] = feature.vocabulary.model_copy(update={"min_frequency": min_frequency})
    if quantiles and any(transform_name(step) == "quantiles" for step in feature.transform):
        changes["transform"] = [
            {"quantiles": quantiles} if transform_name(step) == "quantiles" else step for step in feature.transform
        ]
    return feature.model_copy(update=changes) if changes else feature
