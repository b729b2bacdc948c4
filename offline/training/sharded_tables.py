"""Embedding tables that no single process has to hold: TorchRec spreads their rows over the processes of a run.

    with joined(device) as processes:
        sharded = shard_tables(ranker, processes, learning_rate=1e-3)
        ...                       # look-ups, gradients and updates of embeddings go through TorchRec
        state = whole_state(ranker)

Each process keeps an equal part of every table's rows. A look-up asks the row's owner, and its gradient goes back there, where
TorchRec's row-wise Adagrad changes the row as soon as the gradients are summed (`fused` kernels: no gradient of the table's size,
one accumulator a row). Everything else stays as in offline/training/distributed.py.

Needs TorchRec and FBGEMM, which requirements-distributed.txt pins; nothing else in the product does.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

from data_exchange_center.errors import SettingsError
from offline.models.ranker import Ranker
from offline.training.distributed import Processes

if TYPE_CHECKING:
    from torchrec.distributed.model_parallel import DistributedModelParallel

NAME = "rows"  # of a collection's only table and feature
LANES = 4  # FBGEMM wants rows of a multiple of this many numbers


class TorchRecTable(nn.Module):
    """One table as a TorchRec collection, in the place of an nn.Embedding.

    Args:
        weight: [rows, width], of which row 0 is padding: it is looked up as zeros and does not learn.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        from torchrec import EmbeddingCollection, EmbeddingConfig

        rows, self.width = weight.shape
        padded = -(-self.width // LANES) * LANES
        config = EmbeddingConfig(name=NAME, embedding_dim=padded, num_embeddings=rows, feature_names=[NAME])
        self.collection = EmbeddingCollection(tables=[config], device=weight.device)
        with torch.no_grad():
            own = self.collection.embeddings[NAME].weight
            own.zero_()
            own[:, : self.width] = weight

    def look_up(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The first `size` columns and the others: [*] -> [*, size], [*, width - size]."""
        from torchrec import KeyedJaggedTensor

        flat = rows.reshape(-1)
        asked = KeyedJaggedTensor(keys=[NAME], values=flat, lengths=torch.ones_like(flat))
        found = self.collection(asked)[NAME].values()[:, : self.width]
        found = (found * (flat > 0).unsqueeze(-1)).view(*rows.shape, self.width)
        return found[..., :size], found[..., size:]


def shard_tables(ranker: Ranker, processes: Processes, *, learning_rate: float) -> DistributedModelParallel:
    """Spreads the rows of every table of a ranker over the processes, in place; all must hold the same weights.

    Returns:
        TorchRec's wrapper; the ranker itself goes on to be used.

    Raises:
        SettingsError: TorchRec is not installed.
    """
    try:
        from torch.distributed.optim import _apply_optimizer_in_backward as learn_in_backward
        from torchrec.distributed.comm_ops import set_gradient_division
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.model_parallel import DistributedModelParallel
        from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
        from torchrec.distributed.types import ShardingEnv, ShardingPlan
        from torchrec.optim import RowWiseAdagrad
    except ImportError as error:
        raise SettingsError(
            f"tables are sharded by TorchRec, which cannot be loaded ({error}); "
            "pip install --no-deps -r requirements-distributed.txt",
        ) from error
    sharder = EmbeddingCollectionSharder()
    plan = {}
    for place in range(len(ranker.members)):
        sizes = ranker.member(place).trunk.tables.sizes
        for size, table in sizes.items():
            made = TorchRecTable(table.weight.detach())  # type: ignore[operator]
            sizes[size] = made
            learn_in_backward(RowWiseAdagrad, made.collection.parameters(), {"lr": learning_rate})
            plan[f"members.{place}.trunk.tables.sizes.{size}.collection"] = construct_module_sharding_plan(
                made.collection,
                per_param_sharding={NAME: row_wise(compute_kernel="fused")},
                sharder=sharder,
                world_size=processes.count,
                local_size=processes.count,
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


def whole_state(ranker: Ranker) -> dict[str, Tensor]:
    """The state of a plain ranker, with the tables put together again; on the first process, {} on the others.

    Every process must call it.
    """
    from torch.distributed._shard.sharded_tensor import ShardedTensor

    first = distributed.get_rank() == 0
    state: dict[str, Tensor] = {}
    for name, value in ranker.state_dict().items():
        if not isinstance(value, ShardedTensor):
            state[name] = value
            continue
        whole = torch.empty(*value.size()) if first else None
        value.gather(dst=0, out=whole)
        if whole is not None:
            plain, _, _ = name.partition(f".collection.embeddings.{NAME}")
            width = ranker.get_submodule(plain).width
            state[f"{plain}.weight"] = whole[:, :width].contiguous()
    return state if first else {}


def dense_parameters(ranker: Ranker) -> list[nn.Parameter]:
    """Every parameter but the tables'."""
    return [parameter for name, parameter in ranker.named_parameters() if ".trunk.tables." not in name]
