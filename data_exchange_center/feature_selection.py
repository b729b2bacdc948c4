"""What a run uses of a scene's features."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pydantic import ValidationError

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature, FeatureSpec


def selected(spec: FeatureSpec, patterns: Sequence[str], embedding: int = 0) -> FeatureSpec:
    """The spec of a run that uses some of the features.

    Args:
        patterns: names, or shell patterns like `c*_target`; one that starts with `-` takes features away again. They apply in
            order; when the first takes away, it starts from all features. Without any, all features are used.
        embedding: size of every embedding; those of the spec when 0.

    Returns:
        The chosen features; inputs that only derived features and crosses read are kept as `cross_only`, others are gone.

    Raises:
        SpecError: a pattern that fits no feature, nothing left, or the owner of a shared vocabulary left out.
    """
    names = [feature.name for feature in spec.features]
    chosen = set(names) if not patterns or patterns[0].startswith("-") else set()
    for pattern in patterns:
        fits = _fitting(spec, pattern.removeprefix("-"), names)
        chosen = chosen - fits if pattern.startswith("-") else chosen | fits
    needed = set(chosen)
    for feature in reversed(spec.features):
        if feature.name in needed:
            needed |= set(feature.cross.inputs if feature.cross else feature.derive.inputs if feature.derive else [])
            needed |= {feature.weights} - {""}
    kept = [_kept(feature, feature.name in chosen, embedding) for feature in spec.features if feature.name in needed]
    try:
        return FeatureSpec(scene=spec.scene, folds=spec.folds, features=kept)
    except ValidationError as error:
        raise SpecError(f"scene {spec.scene}: features {list(patterns)}: {error.errors()[0]['msg']}") from error


def _fitting(spec: FeatureSpec, pattern: str, names: list[str]) -> set[str]:
    fits = {name for name in names if fnmatchcase(name, pattern)}
    if not fits:
        near = get_close_matches(pattern, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SpecError(f"scene {spec.scene}: no feature fits {pattern!r}{hint}", field=pattern)
    return fits


def _kept(feature: Feature, chosen: bool, embedding: int) -> Feature:
    hidden = {} if chosen else {"cross_only": True}
    size = {"embedding": embedding} if embedding and feature.embedding else {}
    return feature.model_copy(update={**hidden, **size}) if hidden or size else feature
