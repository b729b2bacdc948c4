"""AdamW and Adagrad for embedding tables of which a step changes the looked-up rows only (offline/models/row_table.py).

Each row learns as if it were a parameter of its own that takes part in the steps that look it up: its values after them are those
of torch.optim.AdamW or torch.optim.Adagrad run on that row over those steps. What follows for a row that is not looked up:

    its weights, moments and sums stay as they are, bit by bit: moments do not decay and weight decay does not act meanwhile
    its own count of steps, not the training's, corrects Adam's bias, so that an id that comes late starts with a full, not an
    overlong, step

Dense Adam moves such rows on by what momentum is left in them; over long gaps that is what makes rare ids drift. A step reads and
writes each touched row, its state and its gradient once, in one compiled pass: 8 numbers a weight for AdamW, 5 for Adagrad.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit

from data_exchange_center.errors import DataError, SettingsError
from offline.models.row_table import RowTable, Touched


class SparseOptimizer(torch.optim.Optimizer):
    """What both have in common. `param_groups` has one group, whose `lr` schedulers and trainers may change.

    Args:
        tables: each with rows that learn.
        defaults: options of the group; `lr` must be positive, the others must not be negative.
    """

    states: tuple[str, ...] = ()  # companions of a table that are this optimizer's, of the table's width

    def __init__(self, tables: Sequence[RowTable], defaults: dict[str, Any]) -> None:
        for name, value in defaults.items():
            if not (value > 0 if name == "lr" else value >= 0):
                raise SettingsError(f"optimizer option {name} must not be {value}", field=name)
        self.tables = list(tables)
        super().__init__([table.storage for table in self.tables], defaults)
        for table in self.tables:
            for name in self.states:
                table.companion(name, table.width)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Changes the rows that were looked up since `zero_grad`."""
        if closure is not None:
            raise SettingsError("sparse optimizers take no closure: a step looks rows up once")
        for table in self.tables:
            touched = table.touched()
            if touched is not None and len(touched.rows):
                self.update(table, touched, self.param_groups[0])

    def update(self, table: RowTable, touched: Touched, options: dict[str, Any]) -> None:
        """Changes rows of one table in place."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets what was looked up."""
        for table in self.tables:
            table.clear()

    def state_dict(self) -> dict[str, Any]:
        """Place of the table -> name -> state of the rows that exist; and the group's options."""
        state = {
            place: {name: companion[: table.rows] for name, companion in table.companions.items()}
            for place, table in enumerate(self.tables)
        }
        options = {name: value for name, value in self.param_groups[0].items() if name != "params"}
        return {"state": state, "param_groups": [options]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave; the tables' rows must have been loaded before.

        Raises:
            DataError: the state is of other tables.
        """
        state = state_dict["state"]
        for place, table in enumerate(self.tables):
            for name, companion in table.companions.items():
                saved = state.get(place, {}).get(name)
                if saved is None or saved.shape != companion[: table.rows].shape:
                    raise DataError(f"the optimizer's state {place}.{name} is missing or does not fit {table}")
                companion[: table.rows] = saved
        self.param_groups[0].update(state_dict["param_groups"][0])


class SparseAdamW(SparseOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019) on touched rows.

    Args:
        tables: that learn.
        lr, betas, eps, weight_decay: as in torch.optim.AdamW.
    """

    states = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        tables: Sequence[RowTable],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise SettingsError(f"optimizer option betas must lie in [0, 1), not {betas}", field="betas")
        self.betas = betas
        super().__init__(tables, {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        for table in self.tables:
            table.companion("steps", 1, torch.int32)
        self._corrections = _corrections(betas, 1024)

    def update(self, table: RowTable, touched: Touched, options: dict[str, Any]) -> None:
        steps = table.companion("steps", 1, torch.int32)
        longest = int(steps[touched.rows].max()) + 1
        if longest >= len(self._corrections):
            self._corrections = _corrections(self.betas, 2 * longest)
        _adamw(
            touched.rows.numpy(), touched.gradients.numpy(), table.storage.numpy(),
            table.companions["exp_avg"].numpy(), table.companions["exp_avg_sq"].numpy(), steps.numpy(),
            self._corrections, *_float32(options["lr"], *self.betas, options["eps"], options["weight_decay"]),
        )  # fmt: skip


class SparseAdagrad(SparseOptimizer):
    """Adagrad (Duchi et al., 2011) on touched rows.

    Args:
        tables: that learn.
        lr, eps: as in torch.optim.Adagrad.
        weight_decay: L2, added to the gradient of touched rows.
    """

    states = ("sum",)

    def __init__(
        self, tables: Sequence[RowTable], lr: float = 1e-2, eps: float = 1e-10, weight_decay: float = 0.0
    ) -> None:
        super().__init__(tables, {"lr": lr, "eps": eps, "weight_decay": weight_decay})

    def update(self, table: RowTable, touched: Touched, options: dict[str, Any]) -> None:
        _adagrad(
            touched.rows.numpy(), touched.gradients.numpy(), table.storage.numpy(), table.companions["sum"].numpy(),
            *_float32(options["lr"], options["eps"], options["weight_decay"]),
        )  # fmt: skip


def _float32(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


def _corrections(betas: tuple[float, float], steps: int) -> np.ndarray:
    """float32 [steps, 2]: what bias correction divides the first moment, and the root of the second, by after that many steps."""
    passed = np.arange(steps, dtype=np.float64)
    passed[0] = 1
    first, second = (1 - beta**passed for beta in betas)
    return np.stack([first, np.sqrt(second)], 1).astype(np.float32)


@njit(cache=True, error_model="numpy")
def _adamw(rows, gradients, weight, mean, square, steps, corrections, rate, beta1, beta2, eps, decay):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    keep = one - rate * decay
    for place in range(len(rows)):
        row = rows[place]
        steps[row, 0] += 1
        first, second = corrections[steps[row, 0], 0], corrections[steps[row, 0], 1]
        rise, spread = rate / first, one / second
        for column in range(weight.shape[1]):
            gradient = gradients[place, column]
            moved = mean[row, column] + (gradient - mean[row, column]) * (one - beta1)
            power = square[row, column] * beta2 + gradient * gradient * (one - beta2)
            mean[row, column], square[row, column] = moved, power
            weight[row, column] = weight[row, column] * keep - rise * moved / (np.sqrt(power) * spread + eps)


@njit(cache=True, error_model="numpy")
def _adagrad(rows, gradients, weight, total, rate, eps, decay):  # type: ignore[no-untyped-def]
    for place in range(len(rows)):
        row = rows[place]
        for column in range(weight.shape[1]):
            gradient = gradients[place, column] + decay * weight[row, column]
            power = total[row, column] + gradient * gradient
            total[row, column] = power
            weight[row, column] -= rate * gradient / (np.sqrt(power) + eps)
