"""Embedding tables whose rows TorchRec spreads over the processes of a run: `distributed.tables: sharded`.

Each process keeps an equal part of every table's rows and of what their optimizer knows of them. A look-up asks the row's owner,
and its gradient goes back there, where Adagrad changes the row as soon as the gradients are summed (`fused` kernels: no gradient
of the table's size). That is what `sparse_adagrad` and `adagrad` do in one process, so that the numbers are the same up to the
order of additions in float32. Everything else is learned as in offline/training/whole_network.py.

A checkpoint holds the tables put together again, as one process would have saved them: it can be gone on from by any number of
processes, and the network of an epoch is a plain one that evaluation, prediction and export open. The first process puts them
together, one table after the other; it must be able to hold the whole network then, and each process once at the start, when the
fresh weights are drawn.

Needs TorchRec and FBGEMM, which requirements-distributed.txt pins; nothing else in the product does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from data_exchange_center.errors import DataError, SettingsError
from offline.models.ranker import Ranker
from offline.training.config import TrainConfig
from offline.training.distributed import Processes
from offline.training.optimizers import optimizer_of
from offline.training.whole_network import WholeNetwork, is_of_table

if TYPE_CHECKING:
    from torch.distributed._shard.sharded_tensor import ShardedTensor

NAME = "rows"  # of a collection's only table and feature
LANES = 4  # FBGEMM wants rows of a multiple of this many numbers
EPS = 1e-10  # of Adagrad, as torch and sparse_adagrad have it


class TorchRecTable(nn.Module):
    """One table as a TorchRec collection, in the place of an nn.Embedding; its rows come into being where it is sharded.

    Row 0 is padding: it is looked up as zeros and does not learn.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        from torchrec import EmbeddingCollection, EmbeddingConfig

        self.width = width
        padded = -(-width // LANES) * LANES
        config = EmbeddingConfig(name=NAME, embedding_dim=padded, num_embeddings=rows, feature_names=[NAME])
        self.collection = EmbeddingCollection(tables=[config], device=torch.device("meta"))

    def look_up(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The first `size` columns and the others: [*] -> [*, size], [*, width - size]. All processes call it at once."""
        from torchrec import KeyedJaggedTensor

        flat = rows.reshape(-1)
        asked = flat if len(flat) else flat.new_zeros(1)  # TorchRec cannot ask for nothing
        keyed = KeyedJaggedTensor(keys=[NAME], values=asked, lengths=torch.ones_like(asked))
        found = self.collection(keyed)[NAME].values()[: len(flat), : self.width]
        found = (found * (flat > 0).unsqueeze(-1)).view(*rows.shape, self.width)
        return found[..., :size], found[..., size:]


class ShardedNetwork(WholeNetwork):
    """A network whose tables no process keeps whole; the ranker's are replaced in place.

    Raises:
        SettingsError: TorchRec is not installed, or torchrun has not started this process.
    """

    def __init__(self, ranker: Ranker, config: TrainConfig, processes: Processes) -> None:
        if not distributed.is_initialized():
            raise SettingsError(
                "distributed.tables sharded is for several processes: start the run by torchrun "
                "(torchrun --nproc-per-node 2 offline/rank/train.py …), or set distributed.tables=whole",
                field="distributed.tables",
            )
        self.ranker, self.processes, self.growing, self.together = ranker, processes, [], True
        state = ranker.state_dict()
        rate = config.optimizer.embeddings.learning_rate
        tables = _Tables(_sharded(ranker, processes, rate).fused_optimizer)
        self.load(state)
        self._parameters = [parameter for name, parameter in ranker.named_parameters() if not is_of_table(name)]
        self._tables = []
        self.optimizers = [tables, optimizer_of(self._parameters, config.optimizer.dense)]

    def state(self) -> dict[str, Tensor]:
        first, state = self.processes.is_first, dict[str, Tensor]()
        for name, value in self.ranker.state_dict().items():
            plain, _, of_table = name.partition(f".collection.embeddings.{NAME}")
            if not of_table:
                state[name] = value
                continue
            whole = _gathered(value)
            if first:
                state[f"{plain}.weight"] = whole[:, : self._width(plain)].contiguous()
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.ranker.state_dict().items():
            plain, _, of_table = name.partition(f".collection.embeddings.{NAME}")
            if of_table:
                _scatter(state[f"{plain}.weight"], value)
            elif state[name].shape == value.shape:
                value.copy_(state[name])
            else:
                raise ValueError(f"{name} is {list(value.shape)} here and {list(state[name].shape)} there")

    def plain(self) -> Ranker | None:
        state = self.state()
        if not self.processes.is_first:
            return None
        with torch.random.fork_rng(devices=[]):  # what the copy begins with is drawn, and training must not notice
            made = Ranker(self.ranker.spec, self.ranker.config)
        made.load_state_dict(state)
        return made.eval()

    def _width(self, table: str) -> int:
        sharded = self.ranker.get_submodule(table)
        assert isinstance(sharded, TorchRecTable)  # noqa: S101  # for the type checker: every table is one
        return sharded.width


class _Tables(torch.optim.Optimizer):
    """Adagrad of sharded rows, which learn in backward: hands on the learning rate, and saves the sums of squared gradients."""

    def __init__(self, fused: Any) -> None:
        self.fused = fused
        anchor = torch.zeros(0)  # torch wants something to optimize
        super().__init__([anchor], {"lr": fused.param_groups[0]["lr"]})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing is left to be done."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The backward pass to come learns with the group's rate."""
        for group in self.fused.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        self.fused.zero_grad()

    def _sums(self) -> Iterator[tuple[str, ShardedTensor]]:
        for weight, states in zip(self.fused.params, self.fused.state.values(), strict=True):
            (total,) = states.values()
            yield weight, total

    def state_dict(self) -> dict[str, Any]:
        """Table -> its sums, put together; all processes call it, and the first one's is complete."""
        state = {weight: {"sum": _gathered(total)} for weight, total in self._sums()}
        options = {name: value for name, value in self.param_groups[0].items() if name != "params"}
        return {"state": state, "param_groups": [options]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over this process's part of what `state_dict` gave.

        Raises:
            DataError: it is of other tables.
        """
        for weight, total in self._sums():
            saved = state_dict["state"].get(weight, {}).get("sum")
            if saved is None:
                raise DataError(f"the optimizer's state of {weight} is missing")
            _scatter(saved, total)
        self.param_groups[0].update(state_dict["param_groups"][0])


def _gathered(value: ShardedTensor) -> Tensor:
    """A sharded tensor put together on the first process; [0] on the others. All processes call it."""
    whole = torch.empty(*value.metadata().size) if distributed.get_rank() == 0 else None
    value.gather(dst=0, out=whole)
    return torch.empty(0) if whole is None else whole


def _scatter(whole: Tensor, target: ShardedTensor) -> None:
    """Copies this process's rows [*, width] into the first columns of its part, and zeros into the others.

    Raises:
        ValueError: the table has other rows.
    """
    rows, padded = target.metadata().size
    if whole.dim() != 2 or len(whole) != rows or not padded - LANES < whole.shape[1] <= padded:
        raise ValueError(f"a table of {rows} rows of {padded} numbers cannot take {list(whole.shape)}")
    for shard in target.local_shards():
        first, count = shard.metadata.shard_offsets[0], shard.metadata.shard_sizes[0]
        shard.tensor.detach().zero_()
        shard.tensor.detach()[:, : whole.shape[1]].copy_(whole[first : first + count])


def _sharded(ranker: Ranker, processes: Processes, rate: float) -> Any:
    """Spreads the rows of every table of a ranker over the processes, in place. Returns TorchRec's wrapper."""
    try:
        from torch.distributed.optim import _apply_optimizer_in_backward as learn_in_backward
        from torchrec.distributed.comm_ops import set_gradient_division
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.model_parallel import DistributedModelParallel
        from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
        from torchrec.distributed.types import ShardingEnv, ShardingPlan
    except ImportError as error:
        raise SettingsError(
            f"distributed.tables sharded is TorchRec's work, which cannot be loaded ({error}): "
            "pip install --no-deps -r requirements-distributed.txt, or set distributed.tables=whole",
            field="distributed.tables",
        ) from error
    sharder = EmbeddingCollectionSharder()
    plan = {}
    for place in range(len(ranker.members)):
        sizes = ranker.member(place).trunk.tables.sizes
        for size, table in sizes.items():
            weight: Tensor = table.weight  # type: ignore[assignment]
            made = sizes[size] = TorchRecTable(*weight.shape)
            learn_in_backward(torch.optim.Adagrad, made.collection.parameters(), {"lr": rate, "eps": EPS})
            plan[f"members.{place}.trunk.tables.sizes.{size}.collection"] = construct_module_sharding_plan(
                made.collection,
                per_param_sharding={NAME: row_wise(compute_kernel="fused")},
                sharder=sharder,
                world_size=processes.count,
                local_size=int(os.environ.get("LOCAL_WORLD_SIZE", processes.count)),
                device_type="cpu",
            )
    set_gradient_division(False)  # losses are divided by the rows of all processes already
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DistributedModelParallel(
            ranker,
            env=ShardingEnv.from_process_group(distributed.group.WORLD),
            device=torch.device("cpu"),
            plan=ShardingPlan(plan=plan),
            sharders=[sharder],
            init_data_parallel=False,
        )
