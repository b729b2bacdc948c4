"""How a fresh embedding row begins, by name; and linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_exchange_center.errors import SettingsError

_FILL: dict[str, Callable[[Tensor, float, torch.Generator | None], object]] = {
    "truncated_normal": lambda rows, scale, generator: nn.init.trunc_normal_(
        rows, std=scale, a=-2 * scale, b=2 * scale, generator=generator
    ),
    "normal": lambda rows, scale, generator: nn.init.normal_(rows, std=scale, generator=generator),
    "uniform": lambda rows, scale, generator: nn.init.uniform_(rows, -scale, scale, generator=generator),
    "zeros": lambda rows, scale, generator: nn.init.zeros_(rows),
}


@dataclass(frozen=True)
class Initializer:
    """Fills rows in place.

    Attributes:
        name: `truncated_normal` (cut at two deviations), `normal`, `uniform` or `zeros`.
        scale: standard deviation, or the largest absolute value of `uniform`.
        zero_columns: trailing columns that begin at zero: first-order weights that lie beside the embedding.

    Raises:
        SettingsError: no such initializer.
    """

    name: str = "truncated_normal"
    scale: float = 0.05
    zero_columns: int = 0

    def __post_init__(self) -> None:
        if self.name not in _FILL:
            raise SettingsError(f"unknown initializer {self.name!r}; there are {', '.join(_FILL)}", field="initializer")

    def fill(self, rows: Tensor, generator: torch.Generator | None = None) -> None:
        """Fills [n, width]; torch's own generator is drawn from when none is given."""
        with torch.no_grad():
            _FILL[self.name](rows, self.scale, generator)
            rows[:, rows.shape[1] - self.zero_columns :] = 0


def begin_by_xavier(network: nn.Module) -> None:
    """Draws the weights of every linear layer from a normal distribution of variance 2 / (inputs + outputs) (Glorot and Bengio,
    2010); biases become zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
