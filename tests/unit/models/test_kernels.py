"""Kernels of training compute what the lines of torch below them say, values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from data_exchange_center.vocabulary import PADDING
from offline.models.kernels import field_sums, field_sums_beside, in_one_pass, linear_relu, look_up


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


def gradients(made: tuple[Tensor, ...], *of: Tensor) -> list[Tensor]:
    """Gradients of a loss that weighs every element differently."""
    loss = sum((tensor * torch.linspace(-1, 2, tensor.numel()).view(tensor.shape)).sum() for tensor in made)
    return list(torch.autograd.grad(loss, of))  # type: ignore[arg-type]


def same(ours: tuple[Tensor, ...], plain: tuple[Tensor, ...], *of: Tensor, tolerance: float = 1e-5) -> None:
    for one, other in zip([*ours, *gradients(ours, *of)], [*plain, *gradients(plain, *of)], strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("width", "size"), [(5, 4), (4, 4), (1, 0), (17, 16)])
@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 3, 5), (0, 3)])
def test_look_up(width: int, size: int, shape: tuple[int, ...]) -> None:
    weight, rows = random(20, width), torch.randint(0, 20, shape, generator=torch.Generator().manual_seed(1))
    assert in_one_pass(rows)
    vectors, rest = functional.embedding(rows, weight, PADDING).split([size, width - size], -1)
    same(look_up(weight, rows, size), (vectors, rest), weight)


def test_padding_does_not_learn() -> None:
    weight = random(4, 3)
    look_up(weight, torch.tensor([0, 1, 0]), 2)[0].sum().backward()
    assert weight.grad is not None and weight.grad[PADDING].abs().sum() == 0 and weight.grad[1].abs().sum() > 0


@pytest.mark.parametrize("shape", [(7, 5, 4), (2, 3, 39, 16), (3, 1, 1)])
def test_field_sums(shape: tuple[int, ...]) -> None:
    fields = random(*shape)
    same(field_sums(fields), (fields.sum(-2), fields.square().sum(-2)), fields)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_field_sums_beside_pass_the_fields_on(kind: torch.dtype) -> None:
    fields = random(6, 4, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        made = field_sums_beside(fields)
    assert made[2].dtype == kind
    same(made, (fields.sum(-2), fields.square().sum(-2), fields.to(kind)), fields)


def test_field_sums_of_a_view_that_is_not_contiguous() -> None:
    fields = random(6, 4, 9)
    part = fields[..., :8]
    same(field_sums(part), (part.sum(-2), part.square().sum(-2)), fields)


@pytest.mark.parametrize("shape", [(9, 6), (2, 5, 6), (1, 6)])
def test_linear_relu(shape: tuple[int, ...]) -> None:
    inputs, weight, bias = random(*shape), random(7, 6), random(7)
    plain = functional.relu(functional.linear(inputs, weight, bias))
    same((linear_relu(inputs, weight, bias),), (plain,), inputs, weight, bias)


def test_linear_relu_without_a_gradient_of_its_inputs() -> None:
    inputs, weight, bias = random(9, 6).detach(), random(7, 6), random(7)
    plain = functional.relu(functional.linear(inputs, weight, bias))
    same((linear_relu(inputs, weight, bias),), (plain,), weight, bias)


def test_linear_relu_obeys_autocast() -> None:
    inputs, weight, bias = random(9, 6), random(7, 6), random(7)
    with torch.autocast("cpu", torch.bfloat16):
        ours = linear_relu(inputs, weight, bias)
        plain = functional.relu(functional.linear(inputs, weight, bias))
    assert ours.dtype == torch.bfloat16
    same((ours,), (plain,), inputs, weight, bias, tolerance=0.03)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: look_up(random(9, 3), torch.tensor([1, 2]), 2)[0],
        lambda: field_sums(random(4, 3, 2))[1],
        lambda: linear_relu(random(4, 3), random(2, 3), random(2)),
    ],
)
def test_values_do_not_depend_on_whether_something_learns(compute: Callable[[], Tensor]) -> None:
    learning = compute()
    with torch.no_grad():
        torch.testing.assert_close(compute(), learning.detach())
