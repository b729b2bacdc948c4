"""What depends on an id alone, computed once per id of a batch and summed per row.

4,096 rows of clicks with 39 fields look up 160,000 vectors, of which some 11,000 differ. A sum over a row's fields, of vectors,
their squares or first-order weights, and the linear layer that reads the fields side by side, which is a sum over fields of
W_f v_f, need each of those only once: a fourteenth of the layer's products, and the rest are additions. Values and gradients are
those of the plain form up to the order in which they are added up; a batch whose ids hardly repeat takes that form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from offline.models.kernels import in_one_pass

REPEATED = 3  # looked-up vectors for one that differs, on average, from which on this pays
LookUp = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows of a table [n] -> vectors [n, d] and first-order weights [n, k]."""


class Sums(NamedTuple):
    """Over a row's fields: first-order weights [B, k], vectors [B, d] and their squares [B, d]."""

    weights: Tensor
    vectors: Tensor
    squares: Tensor


@dataclass(frozen=True)
class FieldsById:
    """The embeddings of a batch's fields, a vector per field and id.

    Attributes:
        vectors: [n, d]. weights: first-order, [n, k].
        places: int32 [B, F], which of them each row has.
        starts: int64 [F + 1]; those of field f are starts[f] to starts[f + 1].
    """

    vectors: Tensor
    weights: Tensor
    places: Tensor
    starts: Tensor

    @cached_property
    def sums(self) -> Sums:
        """Sums over the fields of each row."""
        count, size = self.weights.shape[1], self.vectors.shape[1]
        each = torch.cat([self.weights, self.vectors, self.vectors.square()], 1)
        return Sums(*sum_over_fields(each, self.places).split([count, size, size], 1))

    def linear(self, weight: Tensor) -> Tensor:
        """The fields side by side, times a weight [m, F * d]: float32 [B, m]."""
        with torch.autocast("cpu", enabled=False):
            return sum_over_fields(_PerField.apply(self.vectors, weight, self.starts.tolist()), self.places)

    def apart(self) -> Tensor:
        """The vector of every row and field, [B, F, d], for what needs them so."""
        return functional.embedding(self.places, self.vectors)


def fields_by_id(rows: Tensor, look_up: LookUp) -> FieldsById | None:
    """The fields of a training batch; None where the plain form is to be taken.

    Args:
        rows: of an embedding table, int64 [B, F]. look_up: in it.
    """
    if not in_one_pass(rows) or rows.dim() != 2:
        return None
    distinct, places, starts = distinct_by_field(rows)
    if len(distinct) * REPEATED > rows.numel():
        return None
    return FieldsById(*look_up(distinct), places, starts)


def distinct_by_field(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct values of each column.

    Args:
        rows: int64 [B, F], not negative.

    Returns:
        The values, column by column and in order of appearance, int64 [n]; the place in it of every one that was given, int32
        [B, F]; where each column's begin, and the end, int64 [F + 1].
    """
    slots = 1 << max(2 * len(rows) - 1, 1).bit_length()
    values, places = np.empty(rows.numel(), np.int64), np.empty(rows.shape, np.int32)
    starts = np.zeros(rows.shape[1] + 1, np.int64)
    _distinct(rows.numpy(), np.empty(slots, np.int64), np.empty(slots, np.int32), values, places, starts)
    return torch.from_numpy(values[: starts[-1]]), torch.from_numpy(places), torch.from_numpy(starts)


def sum_over_fields(values: Tensor, places: Tensor) -> Tensor:
    """values[places].sum(1), without the values of every row and field: [n, k] and [B, F] as above -> [B, k]."""
    made: Tensor = _SumOverFields.apply(values, places)
    return made


class _SumOverFields(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor) -> Tensor:
        made = torch.empty(len(places), values.shape[1])
        _sum(values.detach().numpy(), places.numpy(), made.numpy())
        ctx.places, ctx.count = places, len(values)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        made = torch.empty(ctx.count, gradient.shape[1])
        _hand_out(gradient.contiguous().numpy(), ctx.places.numpy(), made.numpy())
        return made, None


class _PerField(torch.autograd.Function):
    """Rows of each field times that field's columns of a weight: [n, d], [m, F * d] -> [n, m]."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weight: Tensor, starts: list[int]) -> Tensor:
        ctx.save_for_backward(vectors, weight)
        ctx.starts = starts
        made = torch.empty(len(vectors), len(weight))
        for rows, columns in _fields(starts, vectors.shape[1]):
            torch.mm(vectors[rows], weight[:, columns].t(), out=made[rows])
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        vectors, weight = ctx.saved_tensors
        of_vectors, of_weight = torch.empty_like(vectors), torch.empty(weight.shape[1], weight.shape[0])
        for rows, columns in _fields(ctx.starts, vectors.shape[1]):
            torch.mm(gradient[rows], weight[:, columns], out=of_vectors[rows])
            torch.mm(vectors[rows].t(), gradient[rows], out=of_weight[columns])
        return of_vectors, of_weight.t().contiguous(), None


def _fields(starts: list[int], size: int) -> list[tuple[slice, slice]]:
    """Of each field: its rows among the distinct, and its columns of a weight on all fields side by side."""
    return [
        (slice(start, stop), slice(field * size, (field + 1) * size))
        for field, (start, stop) in enumerate(pairwise(starts))
    ]


@njit(cache=True, error_model="numpy")
def _distinct(rows, keys, numbers, values, places, starts):  # type: ignore[no-untyped-def]
    """Each column through a hash table that fits the cache; ids of a table follow each other, so that low bits tell them apart."""
    mask = len(keys) - 1
    count = 0
    for field in range(rows.shape[1]):
        keys[:] = -1
        for index in range(rows.shape[0]):
            row = rows[index, field]
            slot = row & mask
            while keys[slot] != row and keys[slot] != -1:
                slot = (slot + 1) & mask
            if keys[slot] == -1:
                keys[slot], numbers[slot] = row, count
                values[count] = row
                count += 1
            places[index, field] = numbers[slot]
        starts[field + 1] = count


@njit(cache=True, error_model="numpy")
def _sum(values, places, made):  # type: ignore[no-untyped-def]
    """Four fields at a time, so that the sum is read and written a fourth as often."""
    fields, width = places.shape[1], made.shape[1]
    whole = fields - fields % 4
    for row in range(places.shape[0]):
        for column in range(width):
            made[row, column] = 0
        for field in range(0, whole, 4):
            one, two, three, four = (
                places[row, field], places[row, field + 1], places[row, field + 2], places[row, field + 3],
            )  # fmt: skip
            for column in range(width):
                made[row, column] += (values[one, column] + values[two, column]) + (
                    values[three, column] + values[four, column]
                )
        for field in range(whole, fields):
            one = places[row, field]
            for column in range(width):
                made[row, column] += values[one, column]


@njit(cache=True, error_model="numpy")
def _hand_out(gradient, places, made):  # type: ignore[no-untyped-def]
    """Field by field: what belongs to one of them stays in the cache. Places are numbered as they appear: each begins as a copy."""
    begun = 0
    for field in range(places.shape[1]):
        for row in range(places.shape[0]):
            place = places[row, field]
            if place == begun:
                begun += 1
                for column in range(gradient.shape[1]):
                    made[place, column] = gradient[row, column]
            else:
                for column in range(gradient.shape[1]):
                    made[place, column] += gradient[row, column]
