"""Training on one CPU thread spends what matrix products leave on moving embeddings; each kernel here moves them once.

`look_up`, `field_sums` and `linear_relu` compute what a few lines of torch say (those lines are below each, and run on GPUs, with
several threads, in the exported graph and for inference); in training they keep nothing but their result, and their gradient is
one pass over memory: no copy of vectors away from their first-order weights, no squares, no mask of a ReLU, no row-by-row sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from data_exchange_center.vocabulary import PADDING

Collect = Callable[[Tensor, Tensor, Tensor], Tensor | None]
"""(rows [n], gradients of vectors [n, d] and of the rest [n, k]) -> the gradient of the anchor, if it has one."""


def in_one_pass(tensor: Tensor) -> bool:
    """Whether training on one CPU thread goes through this tensor."""
    return (
        torch.is_grad_enabled()
        and tensor.device.type == "cpu"
        and torch.get_num_threads() == 1
        and not torch.compiler.is_compiling()
    )


def look_up(weight: Tensor, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The first `size` columns and the others of some rows of a table, of which row PADDING does not learn.

    Args:
        weight: [R, width]. rows: int64 [*].

    Returns:
        [*, size] and [*, width - size].
    """
    if in_one_pass(rows) and weight.requires_grad:
        return look_up_collecting(weight, weight, rows, size, lambda *given: _dense_gradient(weight, *given))
    vectors, rest = functional.embedding(rows, weight, PADDING).split([size, weight.shape[1] - size], -1)
    return vectors, rest


def look_up_collecting(
    anchor: Tensor, weight: Tensor, rows: Tensor, size: int, collect: Collect
) -> tuple[Tensor, Tensor]:
    """As `look_up`, with the gradient handed to `collect`; `anchor` is what the result depends on for autograd."""
    vectors, rest = _LookUp.apply(anchor, weight, rows.reshape(-1), size, collect)
    return vectors.view(*rows.shape, size), rest.view(*rows.shape, weight.shape[1] - size)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, weight: Tensor, rows: Tensor, size: int, collect: Collect
    ) -> tuple[Tensor, Tensor]:
        vectors = torch.empty(len(rows), size)
        rest = torch.empty(len(rows), weight.shape[1] - size)
        _gather(weight.detach().numpy(), rows.numpy(), vectors.numpy(), rest.numpy())
        ctx.rows, ctx.collect = rows, collect
        return vectors, rest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        return ctx.collect(ctx.rows, *gradients), None, None, None, None


def _dense_gradient(weight: Tensor, rows: Tensor, vectors: Tensor, rest: Tensor) -> Tensor:
    gradient = torch.zeros_like(weight)
    add_rows(rows, vectors, rest, gradient)
    return gradient


def add_rows(places: Tensor, vectors: Tensor, rest: Tensor, total: Tensor, skipped: int = PADDING) -> None:
    """total[places] += (vectors, rest), in order; one place is left out."""
    _scatter(places.numpy(), vectors.contiguous().numpy(), rest.contiguous().numpy(), total.numpy(), skipped)


def field_sums(fields: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over fields and sum of squares over fields: [*, F, d] -> [*, d], [*, d]."""
    if _sums_in_one_pass(fields):
        sums, squares = _FieldSums.apply(fields, None)
        return sums, squares
    return sum_of_fields(fields), sum_of_fields(fields.square())


def field_sums_beside(fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `field_sums`, and the fields for what else reads them, in the type of matrix products: both gradients are then one."""
    if _sums_in_one_pass(fields):
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else fields.dtype
        sums, squares, passed = _FieldSums.apply(fields, kind)
        return sums, squares, passed
    return *field_sums(fields), fields


def _sums_in_one_pass(fields: Tensor) -> bool:
    return in_one_pass(fields) and fields.requires_grad and fields.dtype == torch.float32


def sum_of_fields(fields: Tensor) -> Tensor:
    """[*, fields, size] -> [*, size]. An exported graph multiplies by a constant, as runtimes sum over an inner axis slowly."""
    if not torch.compiler.is_exporting():
        return fields.sum(-2)
    count, size = fields.shape[-2:]
    return torch.matmul(fields.flatten(-2), torch.eye(size).repeat(count, 1))


class _FieldSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fields: Tensor, kind: torch.dtype | None) -> tuple[Tensor, ...]:
        block = fields.detach().reshape(-1, *fields.shape[-2:]).contiguous()
        ctx.save_for_backward(fields)
        sums, squares = torch.zeros(len(block), block.shape[2]), torch.zeros(len(block), block.shape[2])
        _sums(block.numpy(), sums.numpy(), squares.numpy())
        shape = (*fields.shape[:-2], fields.shape[-1])
        passed = () if kind is None else (fields.view_as(fields).to(kind),)
        return sums.view(shape), squares.view(shape), *passed

    @staticmethod
    def backward(ctx: Any, of_sums: Tensor, of_squares: Tensor, *of_passed: Tensor) -> tuple[Tensor, None]:
        (fields,) = ctx.saved_tensors
        made = torch.addcmul(of_sums.unsqueeze(-2), fields, of_squares.unsqueeze(-2), value=2)
        for gradient in of_passed:
            made += gradient
        return made, None


def linear_relu(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """max(0, x W^T + b): [*, n] -> [*, m]. Obeys autocast.

    oneDNN adds the bias and cuts at zero while the product is in cache, and its products are faster than MKL's on CPUs that are
    not Intel's.
    """
    learning = torch.is_grad_enabled() and inputs.device.type == "cpu" and not torch.compiler.is_compiling()
    if not (learning and torch.backends.mkldnn.is_available()):
        return functional.relu(functional.linear(inputs, weight, bias))
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
    if kind == torch.bfloat16 and not multiplies_bf16():
        return functional.relu(functional.linear(inputs, weight, bias))
    flat = inputs.reshape(-1, inputs.shape[-1])
    made: Tensor = _LinearRelu.apply(flat.to(kind), weight.to(kind), bias.to(kind))
    return made.view(*inputs.shape[:-1], len(weight))


def multiplies_bf16() -> bool:
    """Whether this CPU has products of bfloat16 matrices; without, they take many times as long as those of float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _LinearRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "relu", [], "")
        ctx.save_for_backward(inputs, weight, made)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        inputs, weight, made = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, made, 0)
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = torch.ops.mkldnn._linear_pointwise(gradient, weight.t(), None, "none", [], "")
        return of_inputs, gradient.t() @ inputs, gradient.sum(0)


@njit(cache=True, error_model="numpy")
def _gather(weight, rows, vectors, rest):  # type: ignore[no-untyped-def]
    size = vectors.shape[1]
    for place in range(len(rows)):
        row = rows[place]
        for column in range(size):
            vectors[place, column] = weight[row, column]
        for column in range(rest.shape[1]):
            rest[place, column] = weight[row, size + column]


@njit(cache=True, error_model="numpy")
def _scatter(places, vectors, rest, total, skipped):  # type: ignore[no-untyped-def]
    size = vectors.shape[1]
    for index in range(len(places)):
        place = places[index]
        if place == skipped:
            continue
        for column in range(size):
            total[place, column] += vectors[index, column]
        for column in range(rest.shape[1]):
            total[place, size + column] += rest[index, column]


@njit(cache=True, error_model="numpy")
def _sums(block, sums, squares):  # type: ignore[no-untyped-def]
    for row in range(block.shape[0]):
        for field in range(block.shape[1]):
            for column in range(block.shape[2]):
                value = block[row, field, column]
                sums[row, column] += value
                squares[row, column] += value * value
