"""Crosses: numbers computed in the graph from raw values of both sides and of the moment.

Scalar operations compute many crosses at once: they read matrices that broadcast against each other ([*u, k] or [*i, k], one
column a cross; one column for all where they share an input) and parameters [k], and return float32 [.., k]. Axis operations
compute one: they read lists ([*u, axis] or [*i, axis]) and scalars [*u] and return float32 without the axis. They hold no
parameters that learn, so training computes them once; serving computes them in the exported graph. An operation is total: zero
counts, missing timestamps and absent terms have a defined answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature, FeatureSpec

Parameters = Mapping[str, Tensor]
LONGEST = 10 * 365.25 * 86400.0  # seconds: elapsed times saturate here, and a missing timestamp counts as this long ago


def rate(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """(sum + strength * prior) / (count + strength): a mean, smoothed. Inputs: sum, count, and a prior (0 without it).

    Parameters: `strength` (default 1) and `limit`: the sum is over the last `limit` events, so the count is at most that.
    """
    total, count = inputs[0].float(), inputs[1].float().clamp(min=0)
    if "limit" in parameters:
        count = torch.minimum(count, parameters["limit"])
    strength = parameters["strength"]
    if len(inputs) > 2:
        total = total + strength * inputs[2].float()
    return total / (count + strength)


def spread(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Standard deviation from the sum of squares, the sum and the count; 0 below two events."""
    squares, total, count = (tensor.float() for tensor in inputs)
    events = count.clamp(min=1)
    variance = squares / events - (total / events).square()
    return torch.sqrt(variance.clamp(min=1e-6)) * (count >= 2).float()


def elapsed(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """log1p of the seconds from a timestamp (second input) to `now` (first). Subtracted as int64, where no second is lost."""
    now, then = inputs
    seconds = (now - then).float().clamp(min=0.0, max=LONGEST)
    return torch.log1p(torch.where(then > 0, seconds, LONGEST))


def open_session(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """log1p of the events of the current session; 0 when the last event is more than `gap` seconds before `now`."""
    now, last, events = inputs
    is_open = ((now - last) <= parameters["gap"].long()) & (last > 0)
    return torch.log1p(events.float().clamp(min=0)) * is_open.float()


def log_gap(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """log1p of the first input minus the second."""
    return torch.log1p(inputs[0].float().clamp(min=0)) - inputs[1].float()


def axis_rate(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Mean, over the item's places on an axis (its genres, its decade), of the user's smoothed rate at that place.

    Inputs: the item's multi-hot [*i, A], the user's sums and counts [*u, A], and the prior [*u] (0 without it). An item with no
    place on the axis gets the prior.
    """
    places, rates, prior = _axis(inputs, parameters)
    there = places.sum(-1)
    return torch.where(there > 0, _dot(places, rates) / there.clamp(min=1), prior)


def axis_rate_max(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """As axis_rate, with the best place instead of the mean."""
    places, rates, prior = _axis(inputs, parameters)
    best = torch.where(places > 0, rates, -1e9).amax(-1)
    return torch.where(places.sum(-1) > 0, best, prior)


def axis_rate_min(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """As axis_rate, with the worst place instead of the mean."""
    places, rates, prior = _axis(inputs, parameters)
    worst = torch.where(places > 0, rates, 1e9).amin(-1)
    return torch.where(places.sum(-1) > 0, worst, prior)


def axis_share(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Share of the user's events at the item's places, averaged over them. Inputs: multi-hot, counts, events."""
    places, counts, events = (tensor.float() for tensor in inputs)
    return _dot(places, counts) / places.sum(-1).clamp(min=1) / (events + 1)


def _axis(inputs: Sequence[Tensor], parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    places, total, count = (tensor.float() for tensor in inputs[:3])
    strength = parameters["strength"]
    if len(inputs) == 3:
        return places, total / (count + strength), torch.zeros_like(total[..., 0])
    prior = inputs[3].float()
    return places, (total + strength * prior.unsqueeze(-1)) / (count + strength), prior


def _dot(places: Tensor, values: Tensor) -> Tensor:
    """Sum of products over the axis; for one user's values a product of matrices, which is what a request has."""
    if values.shape[:-1].numel() == 1:
        return torch.matmul(places, values.reshape(-1))
    return (places * values).sum(-1)


Operation = Callable[[Sequence[Tensor], Parameters], Tensor]


class Kind(NamedTuple):
    """One operation.

    Attributes:
        compute: the operation. takes: how many inputs.
        needs: parameters that must be given. defaults: of those that may be left out.
        axis: its first input is a list per item; such crosses are computed one by one.
    """

    compute: Operation
    takes: range
    needs: tuple[str, ...] = ()
    defaults: Mapping[str, float] = {}
    axis: bool = False


_STRENGTH = {"strength": 1.0}
OPERATIONS: dict[str, Kind] = {
    "rate": Kind(rate, range(2, 4), defaults={"strength": 1.0, "limit": float("inf")}),
    "spread": Kind(spread, range(3, 4)),
    "elapsed": Kind(elapsed, range(2, 3)),
    "open_session": Kind(open_session, range(3, 4), needs=("gap",)),
    "log_gap": Kind(log_gap, range(2, 3)),
    "axis_rate": Kind(axis_rate, range(3, 5), defaults=_STRENGTH, axis=True),
    "axis_rate_max": Kind(axis_rate_max, range(3, 5), defaults=_STRENGTH, axis=True),
    "axis_rate_min": Kind(axis_rate_min, range(3, 5), defaults=_STRENGTH, axis=True),
    "axis_share": Kind(axis_share, range(3, 4), axis=True),
}


def check(feature: Feature) -> None:
    """Raises SpecError unless the cross names a known operation with as many inputs and the parameters that it takes."""
    if feature.cross is None:
        raise SpecError(f"feature {feature.name!r} is no cross", field=feature.name)
    if feature.cross.op not in OPERATIONS:
        known = ", ".join(OPERATIONS)
        raise SpecError(
            f"cross {feature.name!r}: unknown operation {feature.cross.op!r}; there are {known}", field=feature.name
        )
    kind = OPERATIONS[feature.cross.op]
    if len(feature.cross.inputs) not in kind.takes:
        wanted = " or ".join(str(count) for count in kind.takes)
        raise SpecError(
            f"cross {feature.name!r}: {feature.cross.op} takes {wanted} inputs, not {len(feature.cross.inputs)}",
            field=feature.name,
        )
    for name in kind.needs:
        if name not in feature.cross.parameters:
            raise SpecError(
                f"cross {feature.name!r}: {feature.cross.op} needs the parameter {name!r}", field=feature.name
            )
    for name, value in feature.cross.parameters.items():
        if not isinstance(value, int | float):
            raise SpecError(
                f"cross {feature.name!r}: parameter {name!r} must be a number, not {value!r}", field=feature.name
            )


@dataclass(frozen=True)
class Group:
    """Crosses that are computed together: one operation, inputs of the same sides, none of which needs another of the group."""

    crosses: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.crosses)

    @property
    def kind(self) -> Kind:
        return OPERATIONS[_op(self.crosses[0])]

    @property
    def inputs(self) -> list[tuple[str, ...]]:
        """Per input of the operation, the name that each cross reads there."""
        return list(zip(*(feature.cross.inputs for feature in self.crosses if feature.cross), strict=True))

    def compute(self, inputs: Sequence[Tensor]) -> Tensor:
        """All crosses of the group, [.., k] for k crosses.

        Args:
            inputs: per input of the operation [.., k] or [.., 1]; for an axis operation [.., axis] or [..].
        """
        made = self.kind.compute(inputs, self._parameters())
        if self.kind.axis:
            return made.unsqueeze(-1)
        return made if made.shape[-1] == len(self.crosses) else made.expand(*made.shape[:-1], len(self.crosses))

    def _parameters(self) -> dict[str, Tensor]:
        given = [feature.cross.parameters for feature in self.crosses if feature.cross]
        names = [name for name in (*self.kind.needs, *self.kind.defaults) if any(name in one for one in given)]
        names += [name for name, default in self.kind.defaults.items() if name not in names and default < float("inf")]
        return {
            name: torch.tensor([float(one.get(name, self.kind.defaults.get(name, 0.0))) for one in given])  # type: ignore[arg-type]
            for name in names
        }


def groups(spec: FeatureSpec, sides: Mapping[str, str], known: Sequence[str]) -> list[Group]:
    """The crosses that can be computed from what is known, in an order in which they can be.

    Args:
        sides: feature -> side; crosses that read the same place from different sides do not meet in one group.
        known: names of the inputs that are there.
    """
    depth = dict.fromkeys(known, 0)
    grouped: dict[tuple[object, ...], list[Feature]] = {}
    for feature in spec.crosses:
        cross = feature.cross
        if cross is None or any(name not in depth for name in cross.inputs):
            continue
        depth[feature.name] = level = 1 + max(depth[name] for name in cross.inputs)
        alone = feature.name if OPERATIONS[cross.op].axis else ""
        key = (level, cross.op, tuple(sides[name] for name in cross.inputs), alone)
        grouped.setdefault(key, []).append(feature)
    return [Group(tuple(grouped[key])) for key in sorted(grouped, key=lambda key: key[0])]  # type: ignore[arg-type, return-value]


def _op(feature: Feature) -> str:
    assert feature.cross is not None  # noqa: S101  # a group holds crosses
    return feature.cross.op
