"""The operations that a feature spec can declare, and what each of them takes.

Transforms are applied in order to a number (a list in YAML):

    log1p               sign(x) * log(1 + |x|)
    {clip: [a, b]}      bounded to [a, b]
    standardize         (x - mean) / deviation in the fit's rows, bounded to 5 deviations
    {bucketize: [...]}  last: number of edges <= x, the id of an embedding; the edges are declared
    {quantiles: n}      last: the same with edges fitted so that the fit's rows fall into at most n bins of equal size. As in a
                        vocabulary, id 0 is padding (never given), id 1 a missing value, bins start at 2

Derived features (`derive: {op, inputs, parameters}`) are no inputs of the graph: it computes them from the raw values of others.

    value   a numeric input once more, for other transforms or another default. inputs: 1 number
    cross   a hashed combination of ids, in [0, 2**62); see `cross_hash`. inputs: 2 or more int64 ids
    count   how many of the fit's other rows hold the input's value; 0 when none does. inputs: 1 id or cross
    target  smoothed share of positives among the fit's rows with that value: (positives + strength * prior) / (rows + strength),
            prior being the share among all rows, which is what an unseen value gets. Rows that the fit learns from see only
            what the other folds say, so that no row sees its own label. inputs: 1 id or cross

A missing id is a value like any other for cross, count and target. `min_frequency` of count and target leaves rarer values out of
the table, as if they had not been seen, which bounds its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Scalar = int | float | str
Step = str | dict[str, int | list[float]]

TRANSFORMS = ("log1p", "clip", "standardize", "bucketize", "quantiles")
BUCKETS = ("bucketize", "quantiles")  # transforms that make an id


@dataclass(frozen=True)
class Derivation:
    """What an operation of derived features takes.

    Attributes:
        inputs: how many. makes: `number` or `id`.
        parameters: name -> (default, smallest value).
    """

    inputs: range
    makes: str
    parameters: Mapping[str, tuple[float, float]]


DERIVATIONS = {
    "value": Derivation(range(1, 2), "number", {}),
    "cross": Derivation(range(2, 9), "id", {}),
    "count": Derivation(range(1, 2), "number", {"min_frequency": (1, 1)}),
    "target": Derivation(range(1, 2), "number", {"min_frequency": (1, 1), "strength": (20.0, 0.0)}),
}


def transform_name(step: Step) -> str:
    """`log1p` of "log1p", `clip` of {clip: [0, 1]}."""
    return next(iter(step)) if isinstance(step, dict) else step


def transform_values(step: Step) -> list[float]:
    """The numbers of a step that lists some: [0, 1] of {clip: [0, 1]}; [] for other steps."""
    value = next(iter(step.values())) if isinstance(step, dict) else []
    return value if isinstance(value, list) else []


def check_transforms(steps: Sequence[Step]) -> None:
    """Raises ValueError unless every step is a known transform with the values that it takes, buckets last."""
    for step in steps:
        name = transform_name(step)
        if name not in TRANSFORMS:
            raise ValueError(f"unknown transform {name!r}; there are {', '.join(TRANSFORMS)}")
        if isinstance(step, str) != (name in ("log1p", "standardize")):
            raise ValueError(f"transform {step!r}: log1p and standardize take no values, the others take some")
        if isinstance(step, dict):
            _check_values(step, name)
    names = [transform_name(step) for step in steps]
    if any(name in BUCKETS for name in names[:-1]):
        raise ValueError("bucketize and quantiles come last: they make an id")
    if "quantiles" in names and "standardize" in names:
        raise ValueError("quantiles do not change with `standardize`; leave it out")


def _check_values(step: Mapping[str, int | list[float]], name: str) -> None:
    (value, *more) = step.values()
    if name == "quantiles":
        if more or not isinstance(value, int) or not 2 <= value <= 4096:
            raise ValueError(f"transform 'quantiles': one number of bins is needed, 2 to 4096, got {dict(step)}")
        return
    ascending = isinstance(value, list) and all(low < high for low, high in pairwise(value))
    if more or not isinstance(value, list) or not value or not ascending or (name == "clip" and len(value) != 2):
        raise ValueError(f"transform {name!r}: ascending values are needed (two for clip), got {dict(step)}")
    if not np.isfinite(value).all():
        raise ValueError(f"transform {name!r}: finite values are needed, got {dict(step)}")


def check_derivation(op: str, inputs: Sequence[str], parameters: Mapping[str, Scalar]) -> None:
    """Raises ValueError unless the operation is known and gets as many inputs, and only the parameters, that it takes."""
    if op not in DERIVATIONS:
        raise ValueError(f"unknown operation {op!r} of a derived feature; there are {', '.join(DERIVATIONS)}")
    takes = DERIVATIONS[op]
    if len(inputs) not in takes.inputs:
        low, high = takes.inputs.start, takes.inputs.stop - 1
        wanted = f"{low} input(s)" if low == high else f"{low} to {high} inputs"
        raise ValueError(f"{op} takes {wanted}, not {len(inputs)}")
    for name, value in parameters.items():
        if name not in takes.parameters:
            known = ", ".join(takes.parameters) or "none"
            raise ValueError(f"{op} has no parameter {name!r}; it takes {known}")
        smallest = takes.parameters[name][1]
        if isinstance(value, str | bool) or not np.isfinite(value) or value < smallest:
            raise ValueError(f"parameter {name!r} of {op} must be a number of at least {smallest:g}, got {value!r}")


# Two polynomial hashes modulo primes below 2**31: every product stays below 2**62, so int64 never overflows.
CROSS_PRIMES = (2_147_483_647, 2_147_483_629)
CROSS_FACTORS = (1_103_515_245, 1_664_525_123)
CROSS_SHIFT = 2**31


def cross_hash(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The value of a cross, as the graph computes it: int64 [rows] each -> int64 [rows] in [0, 2**62).

    For each of two primes p with its factor a: h = 1, then h = (h * a + (id mod p)) mod p for each id in turn, mod being the
    non-negative remainder; the value is h_1 * 2**31 + h_2. Order matters, so (a, b) and (b, a) differ.
    """
    parts = []
    for prime, factor in zip(CROSS_PRIMES, CROSS_FACTORS, strict=True):
        part = np.ones(len(columns[0]), np.int64)
        for column in columns:
            part = (part * factor + column % prime) % prime
        parts.append(part)
    return parts[0] * CROSS_SHIFT + parts[1]
