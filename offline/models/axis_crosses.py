"""Crosses over an axis of the items (genres, decades): what the user did at the places where an item is.

    axis_rate        mean, over the item's places, of the user's smoothed rate there; the prior for an item without a place
    axis_rate_max    the same for the best place
    axis_rate_min    the same for the worst place
    axis_share       share of the user's events at the item's places, averaged over them

A rate reads the item's multi-hot [*i, A], the user's sums and counts [*u, A] and, optionally, a prior [*u] (0 without it), and is
(sum + strength * prior) / (count + strength), `strength` 1 unless given. A share reads the multi-hot, counts and all events [*u].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from data_exchange_center.feature_spec import Cross, Feature
from offline.models.columns import Columns

FAR = 3e38  # beyond any rate


def cross_of(feature: Feature) -> Cross:
    """The declaration of a cross."""
    assert feature.cross is not None  # noqa: S101  # `check` ran when the trunk was built
    return feature.cross


def over_axis(crosses: Sequence[Cross], scalars: Columns, lists: Mapping[str, Tensor]) -> Tensor:
    """Crosses that read the same multi-hot, [*i, k]. What is summed over the axis is summed for all of them at once."""
    places = lists[crosses[0].inputs[0]].float().clamp(0.0, 1.0)  # a huge value, times another, would be none
    summed = [cross for cross in crosses if cross.op in ("axis_rate", "axis_share")]
    vectors = [
        lists[cross.inputs[1]].float() if cross.op == "axis_share" else _rates(cross, scalars, lists)
        for cross in summed
    ]
    like = vectors[0] if vectors else _rates(crosses[0], scalars, lists)
    *sums, there = _dots(places, [*vectors, torch.ones_like(like)]).split(1, -1)
    sum_of = dict(zip([id(cross) for cross in summed], sums, strict=True))
    made = []
    for cross in crosses:
        if cross.op == "axis_share":
            made.append(
                sum_of[id(cross)] / there.clamp(min=1) / (scalars.take(cross.inputs[2:]).float().clamp(min=0) + 1)
            )
            continue
        if cross.op == "axis_rate":
            value = sum_of[id(cross)] / there.clamp(min=1)
        else:
            rates, sign = _rates(cross, scalars, lists), 1.0 if cross.op == "axis_rate_max" else -1.0
            value = sign * torch.where(places > 0, sign * rates, -FAR).amax(-1, keepdim=True)
        made.append(torch.where(there > 0, value, _prior(cross, scalars)))
    return torch.cat(made, -1)


def _prior(cross: Cross, scalars: Columns) -> Tensor | float:
    return scalars.take(cross.inputs[3:]).float() if len(cross.inputs) > 3 else 0.0


def _rates(cross: Cross, scalars: Columns, lists: Mapping[str, Tensor]) -> Tensor:
    total, count = (lists[name].float() for name in cross.inputs[1:3])
    strength = float(cross.parameters.get("strength", 1.0))  # type: ignore[arg-type]
    return (total + strength * _prior(cross, scalars)) / (count.clamp(min=0) + strength)


def _dots(places: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """Sums over the axis of places [*i, A] times each of k vectors [*u, A], [*i, k]; for one user a product of matrices."""
    side_by_side = torch.stack(list(vectors), -1)
    if side_by_side.shape[:-2].numel() == 1:
        return torch.matmul(places, side_by_side.flatten(0, -2))
    return torch.einsum("...a,...ak->...k", places, side_by_side)
