"""What a model takes, and the check of what it is given: a wrong input is named before the runtime meets it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_exchange_center.errors import StoreError
from data_exchange_center.release import Release
from data_exchange_center.scored_rows import row_form

ELEMENTS: dict[str, str] = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(string)": "string",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}
NUMPY: dict[str, Any] = {
    "float32": np.float32,
    "int64": np.int64,
    "string": object,
    "int32": np.int32,
    "bool": np.bool_,
}
OUTPUTS = ("score", "like", "score_logit", "like_logit")  # of a chain's graph


@dataclass(frozen=True)
class ModelInput:
    """One input of a graph.

    Attributes:
        dtype: float32, int64, string, int32 or bool.
        per_candidate: its leading dimension is the number of candidates; else it is 1.
        inner: the other dimensions, e.g. (50,) for a sequence.
    """

    name: str
    dtype: str
    per_candidate: bool
    inner: tuple[int, ...]

    def example(self, candidates: int) -> np.ndarray:
        """Zeros or empty strings of the right form, for warming up."""
        shape = (candidates if self.per_candidate else 1, *self.inner)
        return np.full(shape, "" if self.dtype == "string" else 0, NUMPY[self.dtype])


def declared_input(name: str, element: str, shape: Sequence[int | str | None]) -> ModelInput:
    """A graph's input as onnxruntime describes it; StoreError when it is not one of the forms that Marquee exports."""
    inner = tuple(size for size in shape[1:] if isinstance(size, int))
    if element not in ELEMENTS or not shape or len(inner) != len(shape) - 1:
        raise StoreError(
            f"model input {name!r} is {element} {list(shape)}: not a form that Marquee exports", field=name
        )
    return ModelInput(name, ELEMENTS[element], shape[0] != 1, inner)


def checked_inputs(
    declared: Sequence[ModelInput], given: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], int]:
    """The inputs in the graph's own terms, and the number of candidates.

    Raises:
        StoreError: an input is missing, unknown, of another type or shape, or not as long as the others; `field` names it.
    """
    if len(given) != len(declared) or any(want.name not in given for want in declared):
        known = {want.name for want in declared}
        absent, unknown = sorted(known - set(given)), sorted(set(given) - known)
        raise StoreError(f"model inputs: missing {absent}, unknown {unknown}", field=(absent or unknown)[0])
    candidates = -1
    for want in declared:
        value = given[want.name]
        if value.dtype != NUMPY[want.dtype] and (value.dtype.kind != "U" or want.dtype != "string"):
            raise StoreError(f"model input {want.name!r}: expected {want.dtype}, got {value.dtype}", field=want.name)
        if value.shape[1:] != want.inner or value.ndim != len(want.inner) + 1:
            leading = "N" if want.per_candidate else "1"
            raise StoreError(
                f"model input {want.name!r}: expected shape {[leading, *want.inner]}, got {list(value.shape)}",
                field=want.name,
            )
        if not want.per_candidate:
            if len(value) != 1:
                raise StoreError(f"model input {want.name!r}: one row a request, got {len(value)}", field=want.name)
        elif candidates < 0:
            candidates = len(value)
        elif len(value) != candidates:
            raise StoreError(
                f"model input {want.name!r}: {len(value)} candidates, others have {candidates}", field=want.name
            )
    return dict(given), max(candidates, 0)


def check_outputs(release: Release, given: Collection[str]) -> None:
    """Makes sure that a graph answers what its release's readers ask for.

    Raises:
        StoreError: an output is missing; `field` names it.
    """
    wanted = OUTPUTS if release.kind == "chain" else (row_form(release).output,)
    absent = sorted(set(wanted) - set(given))
    if absent:
        raise StoreError(f"the model of release {release.id} has no output {absent}", field=absent[0])
