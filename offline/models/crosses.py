"""Crosses: numbers computed in the graph from raw values of both sides and of the moment.

A scalar operation computes many crosses at once: it reads matrices that broadcast against each other ([*u, k] or [*i, k], one
column a cross, or one column for all where they share an input) and parameters [k], and returns float32 [*, k]. Operations over
an axis are in axis_crosses.py. Crosses hold nothing that learns, so training computes them once; serving computes them in the
exported graph. An operation is total: zero counts, missing timestamps and absent terms have a defined answer, and so has whatever
an input may be, since the encoder replaces NaN and bounds numbers at HUGE. Negative counts are none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature, FeatureSpec
from offline.models.axis_crosses import cross_of, over_axis
from offline.models.columns import Columns

Parameters = Mapping[str, Tensor]
SMALLEST_STRENGTH = 1e-6  # of a prior: below, HUGE over it is no float32
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


Operation = Callable[[Sequence[Tensor], Parameters], Tensor]


class Kind(NamedTuple):
    """One operation.

    Attributes:
        takes: how many inputs.
        compute: a scalar operation; None for those over an axis (axis_crosses.py).
        needs: parameters that must be given. defaults: of those that may be left out.
    """

    takes: range
    compute: Operation | None = None
    needs: tuple[str, ...] = ()
    defaults: Mapping[str, float] = {}


OPERATIONS: dict[str, Kind] = {
    "rate": Kind(range(2, 4), rate, defaults={"strength": 1.0, "limit": float("inf")}),
    "spread": Kind(range(3, 4), spread),
    "elapsed": Kind(range(2, 3), elapsed),
    "open_session": Kind(range(3, 4), open_session, needs=("gap",)),
    "log_gap": Kind(range(2, 3), log_gap),
    "axis_rate": Kind(range(3, 5)),
    "axis_rate_max": Kind(range(3, 5)),
    "axis_rate_min": Kind(range(3, 5)),
    "axis_share": Kind(range(3, 4)),
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
        smallest = SMALLEST_STRENGTH if name == "strength" else 0.0
        if not smallest <= value:
            raise SpecError(
                f"cross {feature.name!r}: parameter {name!r} must be at least {smallest:g}, not {value!r}",
                field=feature.name,
            )


@dataclass(frozen=True)
class Group:
    """Crosses that are computed together: one operation whose inputs are of the same sides, or all over one axis of the items."""

    crosses: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.crosses)

    def compute(self, scalars: Columns, lists: Mapping[str, Tensor]) -> Tensor:
        """All crosses of the group, [*, k] for k crosses.

        Args:
            scalars: raw scalars and crosses computed before, [*u] or [*i]. lists: raw lists, [*u, n] or [*i, n].
        """
        inputs = [cross_of(feature).inputs for feature in self.crosses]
        operation = OPERATIONS[cross_of(self.crosses[0]).op].compute
        if operation is None:
            return over_axis([cross_of(feature) for feature in self.crosses], scalars, lists)
        made = operation([scalars.take(names) for names in zip(*inputs, strict=True)], self._parameters())
        return made if made.shape[-1] == len(self.crosses) else made.expand(*made.shape[:-1], len(self.crosses))

    def _parameters(self) -> dict[str, Tensor]:
        given = [cross_of(feature).parameters for feature in self.crosses]
        kind = OPERATIONS[cross_of(self.crosses[0]).op]
        names = [name for name in (*kind.needs, *kind.defaults) if any(name in one for one in given)]
        names += [name for name, default in kind.defaults.items() if name not in names and default < float("inf")]
        return {
            name: torch.tensor([float(one.get(name, kind.defaults.get(name, 0.0))) for one in given])  # type: ignore[arg-type]
            for name in names
        }


def groups(spec: FeatureSpec, sides: Mapping[str, str], known: Collection[str]) -> list[Group]:
    """The crosses that can be computed from what is known, in an order in which they can be.

    Args:
        sides: feature -> side; scalar crosses that read the same place from different sides do not meet in one group.
        known: names of the inputs that are there.
    """
    depth, kept = dict.fromkeys(known, 0), list[Feature]()
    for feature in spec.crosses:
        names = cross_of(feature).inputs
        if all(name in depth for name in names):
            depth[feature.name] = 1 + max(depth[name] for name in names)
            kept.append(feature)
    read = {name for feature in kept for name in cross_of(feature).inputs}
    grouped: dict[tuple[object, ...], list[Feature]] = {}
    for feature in kept:
        cross = cross_of(feature)
        if OPERATIONS[cross.op].compute is None:
            key: tuple[object, ...] = (cross.inputs[0], depth[feature.name] if feature.name in read else "")
        else:
            key = (cross.op, depth[feature.name], *(sides[name] for name in cross.inputs))
        grouped.setdefault(key, []).append(feature)
    order = sorted(grouped.values(), key=lambda members: max(depth[feature.name] for feature in members))
    return [Group(tuple(members)) for members in order]
