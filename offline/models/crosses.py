"""Crosses: numbers computed in the graph from raw values of both sides and of the moment.

Each operation reads tensors that broadcast against each other ([*u] or [*u, axis] from the user's side, [*i] or [*i, axis] from
the item's) and returns a float32 tensor without the axis. They hold no parameters that learn, so training computes them once;
serving computes them in the exported graph. An operation is total: zero counts, missing timestamps and absent terms have a
defined answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature

Parameters = Mapping[str, float]
LONGEST = 10 * 365.25 * 86400.0  # seconds: elapsed times saturate here, and a missing timestamp counts as this long ago


def rate(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """(sum + strength * prior) / (count + strength): a mean, smoothed. Inputs: sum, count, and a prior (0 without it).

    Parameters: `strength` (default 1) and `limit`: the sum is over the last `limit` events, so the count is at most that.
    """
    total, count = inputs[0].float(), inputs[1].float().clamp(min=0)
    if "limit" in parameters:
        count = count.clamp(max=parameters["limit"])
    strength = parameters.get("strength", 1.0)
    prior = strength * inputs[2].float() if len(inputs) > 2 else 0.0
    return (total + prior) / (count + strength)


def spread(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Standard deviation from the sum of squares, the sum and the count; 0 below two events."""
    squares, total, count = (tensor.float() for tensor in inputs)
    events = count.clamp(min=1)
    variance = squares / events - (total / events) ** 2
    return torch.sqrt(variance.clamp(min=1e-6)) * (count >= 2).float()


def elapsed(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """log1p of the seconds from a timestamp (second input) to `now` (first). Subtracted as int64, where no second is lost."""
    now, then = inputs
    seconds = (now - then).float().clamp(min=0.0, max=LONGEST)
    return torch.log1p(torch.where(then > 0, seconds, LONGEST))


def open_session(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """log1p of the events of the current session; 0 when the last event is more than `gap` seconds before `now`."""
    now, last, events = inputs
    is_open = ((now - last) <= int(parameters["gap"])) & (last > 0)
    return torch.log1p(events.float().clamp(min=0)) * is_open.float()


def axis_rate(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Mean, over the item's places on an axis (its genres, its decade), of the user's smoothed rate at that place.

    Inputs: the item's multi-hot [*i, A], the user's sums and counts [*u, A], and the prior [*u] (0 without it). An item with no
    place on the axis gets the prior.
    """
    places, rates, prior = _axis(inputs, parameters)
    there = places.sum(-1)
    return torch.where(there > 0, (places * rates).sum(-1) / there.clamp(min=1), prior)


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
    return (places * counts).sum(-1) / places.sum(-1).clamp(min=1) / (events + 1)


def log_gap(inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """log1p of the first input minus the second."""
    return torch.log1p(inputs[0].float().clamp(min=0)) - inputs[1].float()


def _axis(inputs: Sequence[Tensor], parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    places, total, count = (tensor.float() for tensor in inputs[:3])
    prior = inputs[3].float() if len(inputs) > 3 else torch.zeros_like(total[..., 0])
    strength = parameters.get("strength", 1.0)
    return places, (total + strength * prior.unsqueeze(-1)) / (count + strength), prior


Operation = Callable[[Sequence[Tensor], Parameters], Tensor]

# name -> (operation, how many inputs it takes, parameters it must be given)
OPERATIONS: dict[str, tuple[Operation, range, tuple[str, ...]]] = {
    "rate": (rate, range(2, 4), ()),
    "spread": (spread, range(3, 4), ()),
    "elapsed": (elapsed, range(2, 3), ()),
    "open_session": (open_session, range(3, 4), ("gap",)),
    "axis_rate": (axis_rate, range(3, 5), ()),
    "axis_rate_max": (axis_rate_max, range(3, 5), ()),
    "axis_rate_min": (axis_rate_min, range(3, 5), ()),
    "axis_share": (axis_share, range(3, 4), ()),
    "log_gap": (log_gap, range(2, 3), ()),
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
    _, takes, needs = OPERATIONS[feature.cross.op]
    if len(feature.cross.inputs) not in takes:
        wanted = " or ".join(str(count) for count in takes)
        raise SpecError(
            f"cross {feature.name!r}: {feature.cross.op} takes {wanted} inputs, not {len(feature.cross.inputs)}",
            field=feature.name,
        )
    for name in needs:
        if name not in feature.cross.parameters:
            raise SpecError(
                f"cross {feature.name!r}: {feature.cross.op} needs the parameter {name!r}", field=feature.name
            )
    for name, value in feature.cross.parameters.items():
        if not isinstance(value, int | float):
            raise SpecError(
                f"cross {feature.name!r}: parameter {name!r} must be a number, not {value!r}", field=feature.name
            )


def compute(feature: Feature, values: Mapping[str, Tensor]) -> Tensor:
    """One cross from the values that it names."""
    assert feature.cross is not None  # noqa: S101  # `check` ran when the trunk was built
    operation, _, _ = OPERATIONS[feature.cross.op]
    parameters = {name: float(value) for name, value in feature.cross.parameters.items()}  # type: ignore[arg-type]
    return operation([values[name] for name in feature.cross.inputs], parameters)
