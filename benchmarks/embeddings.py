"""Growing embeddings against a fixed table: what a training step costs at one and at ten million ids, and what an id costs.

    python benchmarks/embeddings.py                        about two minutes, 5 GiB
    python benchmarks/embeddings.py --ids 200000 2000000   smaller

A step is DeepFM's (embedding 16, MLP 400-400-400) on a batch of 4096 rows of 26 ids, with SparseAdamW on the touched rows
and AdamW on the rest, on one thread. Ids are 64-bit, drawn with equal chance from all that the table knows, which no cache
can help; the fixed table gets the row numbers of the same ids. Both take turns, and CPU seconds are compared, of whole steps
and of what embeddings alone do in them. Whole steps are what training feels, and the measure. Embeddings alone take longer in
any table that outgrows the caches, the fixed one too, whose growth stands beside. The torch row is nn.Embedding(sparse=True)
with SparseAdam. `grow` is learning all ids from nothing; its longest batch shows what growing the index costs.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import report
from data_exchange_center.vocabulary import FIRST
from offline.models.growing import GrowingIds, GrowthPolicy
from offline.models.kernels import field_sums
from offline.models.layers import LinearRelu, fm_pooling
from offline.models.row_table import RowTable
from offline.training.sparse_optimizers import SparseAdamW

log = logging.getLogger("marquee.benchmark")

FIELDS, SIZE, BATCH, HIDDEN = 26, 16, 4096, (400, 400, 400)
GROWING_BATCH = 100_000  # ids learned at a time while a table grows


class Network(nn.Module):
    """FM and MLP over the vectors of a batch."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (FIELDS * SIZE, *HIDDEN)
        layers = [LinearRelu(before, size) for before, size in pairwise(sizes)]
        self.mlp = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

    def forward(self, vectors: Tensor) -> Tensor:
        pairs = fm_pooling(*field_sums(vectors)).sum(-1)
        logit: Tensor = self.mlp(vectors.flatten(-2)).squeeze(-1) + pairs
        return logit


class Contender:
    """One kind of table in a training step.

    Args:
        look_up: ids [BATCH, FIELDS] -> vectors.
        optimizer: of the table.
    """

    def __init__(self, look_up: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer) -> None:
        torch.manual_seed(0)
        self.look_up, self.optimizer, self.network = look_up, optimizer, Network()
        self.dense = torch.optim.AdamW(self.network.parameters(), fused=True)
        self.spent: list[tuple[float, float]] = []

    def step(self, ids: Tensor, labels: Tensor) -> None:
        """One step; keeps its CPU milliseconds, all and without the network's."""
        started = time.process_time()
        vectors = self.look_up(ids)
        looked_up = time.process_time()
        leaf = vectors.detach().requires_grad_()  # the network's part of the step, cut out to be timed
        functional.binary_cross_entropy_with_logits(self.network(leaf), labels).backward()
        self.dense.step()
        self.dense.zero_grad()
        learned = time.process_time()
        vectors.backward(leaf.grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        ended = time.process_time()
        self.spent.append((1e3 * (ended - started), 1e3 * (ended - learned + looked_up - started)))

    def measured(self, warm_up: int) -> dict[str, float]:
        """Medians over steps."""
        whole, alone = zip(*self.spent[warm_up:], strict=True)
        return {
            "step_p50_ms": round(statistics.median(whole), 2),
            "embeddings_p50_ms": round(statistics.median(alone), 2),
        }


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def grown(ids: np.ndarray) -> tuple[RowTable, GrowingIds, dict[str, float]]:
    """A table that has learned all ids from nothing, and what that took."""
    before = resident()
    table = RowTable(FIRST, SIZE, limit=len(ids) + FIRST)
    growing = GrowingIds(table, {"id": GrowthPolicy()})
    times = []
    for part in torch.from_numpy(ids).split(GROWING_BATCH):
        started = time.process_time()
        growing.rows("id", part)
        times.append(time.process_time() - started)
    return (
        table,
        growing,
        {
            "grow_ids_per_cpu_s": round(len(ids) / sum(times)),
            "grow_batch_p50_ms": round(1e3 * statistics.median(times), 1),
            "grow_batch_longest_ms": round(1e3 * max(times), 1),
            "bytes_per_id": round((resident() - before) / len(ids), 1),
        },
    )


def contenders(ids: np.ndarray, torch_too: bool) -> tuple[dict[str, Contender], dict[str, float]]:
    """The kinds of tables over these ids, by name, and what growing took."""
    table, growing, facts = grown(ids)
    fixed = RowTable(len(ids) + FIRST, SIZE)
    made = {
        "growing": Contender(lambda given: table(growing.rows("id", given)), SparseAdamW([table])),
        "fixed": Contender(fixed, SparseAdamW([fixed])),
    }
    if torch_too:
        plain = nn.Embedding(len(ids) + FIRST, SIZE, sparse=True)
        made["torch_sparse"] = Contender(plain, torch.optim.SparseAdam(plain.parameters()))
    return made, facts


def steps(count: int, number: int, seed: int, torch_too: bool) -> dict[str, dict[str, float]]:
    """Takes turns at `number` steps over `count` ids."""
    random = np.random.default_rng(seed)
    ids = random.permutation(np.unique(random.integers(-(2**63), 2**63 - 1, count)))
    made, facts = contenders(ids, torch_too)
    labels = torch.from_numpy((random.random(BATCH) < 0.03).astype(np.float32))
    warm_up = max(2, number // 5)
    for _ in range(number + warm_up):
        places = random.integers(0, len(ids), (BATCH, FIELDS))
        for name, one in made.items():
            one.step(torch.from_numpy(ids[places] if name == "growing" else places + FIRST), labels)
    found: dict[str, dict[str, float]] = {name: one.measured(warm_up) for name, one in made.items()}
    found["growing"] |= facts
    log.info("  %d ids: %s", count, found)
    return found


def turnover(ids: int, seed: int) -> dict[str, Any]:
    """Admission and eviction on a stream of ids whose popularity is a power law and drifts: counts at its end."""
    random = np.random.default_rng(seed)
    table = RowTable(FIRST, SIZE, limit=ids)
    growing = GrowingIds(table, {"id": GrowthPolicy(admit_after=3, evict_after=40)})
    sightings = distinct = 0
    seen: set[int] = set()
    for step in range(200):
        drawn = (random.zipf(1.2, 20_000) % 1_000_000) + step * 500
        growing.rows("id", torch.from_numpy(drawn))
        growing.tick("step")
        seen.update(drawn.tolist())
        sightings += len(drawn)
    distinct = len(seen)
    counts = growing.counts("id")
    return {
        "sightings": sightings,
        "distinct_ids": distinct,
        "admitted": counts.admitted,
        "evicted": counts.evicted,
        "rows_in_use": counts.rows,
        "rows_ever_used": table.rows - FIRST,
        "ids_known": counts.known,
    }


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ids", type=int, nargs=2, default=[1_000_000, 10_000_000], help="of the two sizes compared")
    options.add_argument("--steps", type=int, default=20, help="of each kind of table that are timed")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    grown(np.arange(1000))  # compiles
    small = steps(given.ids[0], given.steps, given.seed, torch_too=True)
    gc.collect()
    large = steps(given.ids[1], given.steps, given.seed, torch_too=False)
    few, many = small["growing"], large["growing"]
    report(
        "embeddings",
        {"growing": {str(given.ids[0]): few, str(given.ids[1]): many}},
        {
            "fixed": {str(given.ids[0]): small["fixed"], str(given.ids[1]): large["fixed"]},
            "torch_sparse": {str(given.ids[0]): small["torch_sparse"]},
        },
        {
            "cost_against_fixed": round(few["step_p50_ms"] / small["fixed"]["step_p50_ms"], 3),
            "cost_against_fixed_embeddings_alone": round(
                few["embeddings_p50_ms"] / small["fixed"]["embeddings_p50_ms"], 3
            ),
            "growth_of_step": round(many["step_p50_ms"] / few["step_p50_ms"], 3),
            "growth_of_step_embeddings_alone": round(many["embeddings_p50_ms"] / few["embeddings_p50_ms"], 3),
            "growth_of_step_fixed": round(large["fixed"]["step_p50_ms"] / small["fixed"]["step_p50_ms"], 3),
            "growth_of_step_fixed_embeddings_alone": round(
                large["fixed"]["embeddings_p50_ms"] / small["fixed"]["embeddings_p50_ms"], 3
            ),
            "faster_than_torch_sparse": round(small["torch_sparse"]["step_p50_ms"] / few["step_p50_ms"], 2),
        },
        turnover=turnover(2_000_000, given.seed),
    )


if __name__ == "__main__":
    main()
