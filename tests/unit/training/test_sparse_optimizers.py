"""Sparse optimizers: touched rows move as torch's dense ones would, the others not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.vocabulary import PADDING
from offline.models.row_table import RowTable
from offline.training.sparse_optimizers import SparseAdagrad, SparseAdamW, SparseOptimizer

ROWS, WIDTH = 40, 5
PAIRS: list[tuple[Callable[..., SparseOptimizer], Callable[..., torch.optim.Optimizer], dict[str, Any]]] = [
    (SparseAdamW, torch.optim.AdamW, {"lr": 0.03, "weight_decay": 0.0}),
    (SparseAdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.2, "betas": (0.8, 0.95), "eps": 1e-6}),
    (SparseAdagrad, torch.optim.Adagrad, {"lr": 0.1}),
    (SparseAdagrad, torch.optim.Adagrad, {"lr": 0.05, "weight_decay": 0.1, "eps": 1e-8}),
]


def loss(vectors: Tensor) -> Tensor:
    return ((vectors - 1) ** 2 * torch.linspace(0.2, 3, WIDTH)).sum()


@pytest.mark.parametrize(("sparse", "dense", "options"), PAIRS)
def test_rows_that_every_step_touches_follow_the_dense_optimizer(
    sparse: Callable[..., SparseOptimizer], dense: Callable[..., torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    table, ids = RowTable(ROWS, WIDTH, seed=1), torch.arange(1, ROWS).repeat(2)
    weight = table.weight.clone().requires_grad_()
    ours, theirs = sparse([table], **options), dense([weight], **options)
    for _ in range(30):
        for optimizer, looked_up in ((ours, lambda: table(ids)), (theirs, lambda: weight[ids])):
            optimizer.zero_grad()
            loss(looked_up()).backward()
            optimizer.step()
    torch.testing.assert_close(table.weight[1:], weight.detach()[1:], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("sparse", "dense", "options"), PAIRS)
def test_a_row_follows_the_dense_optimizer_over_the_steps_that_touch_it(
    sparse: Callable[..., SparseOptimizer], dense: Callable[..., torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    table = RowTable(ROWS, WIDTH, seed=2)
    alone = {row: table.weight[row].clone().requires_grad_() for row in range(1, ROWS)}
    theirs, ours = {row: dense([weight], **options) for row, weight in alone.items()}, sparse([table], **options)
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        ids = torch.randint(1, ROWS, (12,), generator=generator)
        ours.zero_grad()
        loss(table(ids)).backward()
        ours.step()
        for row in set(ids.tolist()):
            theirs[row].zero_grad()
            (loss(alone[row]) * (ids == row).sum()).backward()
            theirs[row].step()
    expected = torch.stack([alone[row].detach() for row in range(1, ROWS)])
    torch.testing.assert_close(table.weight[1:], expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("optimizer", [SparseAdamW, SparseAdagrad])
def test_rows_that_a_step_does_not_look_up_stay_as_they_are(optimizer: type[SparseOptimizer]) -> None:
    table = RowTable(ROWS, WIDTH)
    ours = optimizer([table], weight_decay=0.5)  # type: ignore[call-arg]
    for ids in (torch.arange(ROWS), torch.tensor([3, 7, 3])):
        before = {"weight": table.weight.clone(), **{n: c[:ROWS].clone() for n, c in table.companions.items()}}
        ours.zero_grad()
        loss(table(ids)).backward()
        ours.step()
    others = [row for row in range(ROWS) if row not in (3, 7)]
    assert table.weight[others].equal(before["weight"][others])
    assert not table.weight[3].equal(before["weight"][3])
    for name, companion in table.companions.items():
        assert companion[others].equal(before[name][others]), name


@pytest.mark.parametrize("optimizer", [SparseAdamW, SparseAdagrad])
def test_padding_stays_zero(optimizer: type[SparseOptimizer]) -> None:
    table = RowTable(ROWS, WIDTH)
    ours = optimizer([table], weight_decay=0.5)  # type: ignore[call-arg]
    for _ in range(3):
        ours.zero_grad()
        loss(table(torch.tensor([PADDING, 4, PADDING]))).backward()
        ours.step()
    assert (table.weight[PADDING] == 0).all()


def test_look_ups_of_one_step_add_up() -> None:
    table = RowTable(ROWS, WIDTH, seed=3)
    weight = table.weight.clone().requires_grad_()
    first, second = torch.tensor([[1, 2], [2, 9]]), torch.tensor([2, 30])
    for looked_up in (lambda ids: table(ids), lambda ids: weight[ids]):
        loss(looked_up(first)).backward()
        loss(looked_up(second)).backward()
    touched = table.touched()
    assert touched is not None and weight.grad is not None
    assert touched.rows.tolist() == [1, 2, 9, 30]
    torch.testing.assert_close(touched.gradients, weight.grad[touched.rows])


def test_nothing_is_touched_without_training() -> None:
    table = RowTable(ROWS, WIDTH)
    with torch.no_grad():
        table(torch.tensor([1]))
    table.eval()(torch.tensor([2]))
    assert table.touched() is None


def test_a_scheduler_moves_the_rate() -> None:
    table = RowTable(ROWS, WIDTH)
    ours = SparseAdagrad([table], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(ours, lambda epoch: 0.5**epoch)
    ours.step()
    scheduler.step()
    assert ours.param_groups[0]["lr"] == 0.5


def test_state_of_another_table_is_refused() -> None:
    saved = SparseAdamW([RowTable(3, WIDTH)]).state_dict()
    with pytest.raises(DataError, match="does not fit"):
        SparseAdamW([RowTable(4, WIDTH)]).load_state_dict(saved)


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"eps": -1.0}, {"weight_decay": -0.1}, {"betas": (1.0, 0.9)}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))):
        SparseAdamW([RowTable(3, WIDTH)], **options)
