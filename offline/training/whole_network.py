"""A network as training sees it: what is learned by which optimizer, and what is exchanged, saved and loaded of it.

Here every process holds all of it; offline/training/sharded_tables.py has the same for tables that are spread over the processes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from offline.models.growing import GrowingIds
from offline.models.ranker import Ranker
from offline.models.row_table import RowTable
from offline.models.tables import EmbeddingTables
from offline.training.config import TrainConfig
from offline.training.distributed import Processes
from offline.training.optimizers import optimizer_of, sparse_optimizer_of, with_own_decay_of_last_column


class WholeNetwork:
    """The network of a run.

    Args:
        ranker: on its device; all processes hold the same weights.
        config: of the run.
        processes: that learn it together.

    Attributes:
        optimizers: one for the embedding tables and one for everything else.
        growing: the maps of ids that grow; those of all processes see the ids of all, and so stay equal.
        together: whether a look-up is made by all processes at once, so that one without rows has to take part as well.
    """

    def __init__(self, ranker: Ranker, config: TrainConfig, processes: Processes) -> None:
        self.ranker, self.processes = ranker, processes
        self.growing = [module for module in ranker.modules() if isinstance(module, GrowingIds)]
        self.together = bool(self.growing) and processes.count > 1
        if self.together:
            _grow_together(ranker, self.growing, processes)
        self.optimizers = optimizers_of(ranker, config)
        self._parameters = [parameter for parameter in ranker.parameters() if parameter.requires_grad]
        self._tables = [module for module in ranker.modules() if isinstance(module, RowTable)]

    def add_up(self) -> None:
        """Gradients become those of the rows of all processes."""
        self.processes.add_up(self._parameters)
        for table in self._tables:
            self.processes.add_up_rows(table)

    def state(self) -> dict[str, Tensor]:
        """The state of the plain ranker; every process calls it, and the first one's is complete."""
        return self.ranker.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave.

        Raises:
            KeyError, ValueError, RuntimeError: it is of another network.
        """
        self.ranker.load_state_dict(state)

    def plain(self) -> Ranker | None:
        """The ranker as it is saved and scored without the others: on the first process. Every process calls it."""
        return self.ranker if self.processes.is_first else None


def optimizers_of(ranker: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """One for the embedding tables and one for everything else."""
    tables, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in ranker.named_parameters():
        (tables if is_of_table(name) else others).append(parameter)
    rows = [module for module in ranker.modules() if isinstance(module, RowTable)]
    of_rows = [sparse_optimizer_of(rows, config.optimizer.embeddings)] if rows else []
    of_tables = [optimizer_of(tables, config.optimizer.embeddings)] if tables else []
    own, reg = config.optimizer.first_order_reg, config.optimizer.embeddings.reg
    if own is not None and of_tables:
        with_own_decay_of_last_column(of_tables[0], _with_first_order(ranker), reg, own)
    return of_rows + of_tables + ([optimizer_of(others, config.optimizer.dense)] if others else [])


def _with_first_order(ranker: nn.Module) -> list[nn.Parameter]:
    """The tables whose last column is the ids' first-order weights."""
    found = [module for module in ranker.modules() if isinstance(module, EmbeddingTables) and module.first_order]
    return [parameter for tables in found for parameter in tables.sizes.parameters()]


def is_of_table(name: str) -> bool:
    """Whether a name in a ranker's state is one of its embedding tables."""
    return ".trunk.tables." in name


def _grow_together(ranker: Ranker, growing: list[GrowingIds], processes: Processes) -> None:
    """Each process learns the ids of all, in the order in which one process would see them, so that all own the same rows."""
    for place in range(len(ranker.members)):
        ranker.member(place).trunk.tables.seen_by_all = processes.side_by_side
    for one in growing:  # machines may differ in memory, and with it in how many rows a table may have
        limits = processes.gathered(torch.tensor([one.pool.limit]))
        one.pool.limit = int(torch.cat(limits).min())
