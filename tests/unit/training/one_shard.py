"""One of several processes that torchrun starts: learns clicks with tables whose rows TorchRec spreads over them.

torchrun --nproc-per-node 2 tests/unit/training/one_shard.py <folder>
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

from offline.training.distributed import joined
from offline.training.sharded_tables import dense_parameters, shard_tables, whole_state
from tests.unit.training.clicks import click_batch, click_ranker

STEPS, ROWS, RATE = 30, 40, 0.05


def main() -> None:
    folder, rows = Path(sys.argv[1]), click_batch()
    with joined(torch.device("cpu")) as processes:
        ranker = click_ranker(dropout=0.0).train()
        member = ranker.member(0)
        member.trunk.unknown_rate = 0.0
        shard_tables(ranker, processes, learning_rate=RATE)
        dense = dense_parameters(ranker)
        optimizer = torch.optim.Adam(dense, RATE)
        losses = []
        batches = [
            rows._replace(
                inputs={name: tensor[taken] for name, tensor in rows.inputs.items()},
                numbers=rows.numbers._replace(item=rows.numbers.item[taken]),
                labels=rows.labels[taken],
            )
            for taken in (torch.arange(ROWS) + step * 17 % 500 for step in range(STEPS))
        ]
        for batch in processes.share(batches):
            logit = member.heads["like"](member.trunk.assemble(batch.inputs, batch.numbers))
            loss = functional.binary_cross_entropy_with_logits(logit, batch.labels, reduction="sum") / ROWS
            loss.backward()
            processes.add_up(dense)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(processes.total(loss.detach())))
        state = whole_state(ranker)
        if processes.is_first:
            save_file(state, folder / "weights")
            (folder / "losses.json").write_text(json.dumps(losses))
            held = sum(p.numel() for name, p in ranker.named_parameters() if ".trunk.tables." in name)
            (folder / "held.json").write_text(json.dumps(held))


if __name__ == "__main__":
    main()
