"""Two processes learn what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_exchange_center.settings import ROOT
from offline.models.layers import Sides
from offline.training.dataset import LikeBatch
from offline.training.distributed import ALONE, Processes
from tests.unit.training import one_of_two
from tests.unit.training.clicks import click_ranker


def in_processes(count: int, program: str, *arguments: str) -> None:
    """Runs a test program by torchrun; its output is shown when it fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", program]
    command += arguments
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("embeddings", ["adam", "sparse_adamw"])
def test_losses_and_weights_are_those_of_one_process(tmp_path: Path, embeddings: str) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    in_processes(2, str(ROOT / "tests/unit/training/one_of_two.py"), str(together), embeddings)
    ranker = one_of_two.train(alone, embeddings)
    first, second = (load_file(together / f"weights-{rank}") for rank in (0, 1))
    for name, tensor in ranker.state_dict().items():
        assert first[name].equal(second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-4)
    expected = json.loads((alone / "history-0.json").read_text())
    histories = [json.loads((together / f"history-{rank}.json").read_text()) for rank in (0, 1)]
    assert histories[0] == histories[1]
    for ours, theirs in zip(histories[0], expected, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours["train_auc"] == pytest.approx(theirs["train_auc"], abs=1e-3)
        assert (ours["rows"], ours["step"]) == (theirs["rows"], theirs["step"])


def batch_of(rows: int) -> LikeBatch:
    return LikeBatch(
        {"encoded.c": torch.arange(rows)}, Sides(torch.zeros(1, 0), torch.rand(rows, 2)), torch.arange(rows).float()
    )


@pytest.mark.parametrize("rows", [0, 1, 5, 8])
def test_the_shares_of_a_batch_are_all_of_it(rows: int) -> None:
    batch = batch_of(rows)
    parts = [next(iter(Processes(rank, 3).share([batch]))) for rank in range(3)]
    assert torch.cat([part.labels for part in parts]).equal(batch.labels)
    assert torch.cat([part.inputs["encoded.c"] for part in parts]).equal(batch.inputs["encoded.c"])
    assert torch.cat([part.numbers.item for part in parts]).equal(batch.numbers.item)
    assert max(len(part.labels) for part in parts) - min(len(part.labels) for part in parts) <= 1


def test_alone_nothing_is_copied() -> None:
    batch = batch_of(3)
    assert next(iter(ALONE.share([batch]))) is batch
    assert ALONE.total(batch.labels) is batch.labels


def test_tables_sharded_by_torchrec_learn_what_one_process_learns(tmp_path: Path) -> None:
    program = str(ROOT / "tests/unit/training/one_shard.py")
    found = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        in_processes(count, program, str(folder))
        found[count] = [json.loads((folder / name).read_text()) for name in ("losses.json", "held.json")]
        found[count].append(load_file(folder / "weights"))
    (alone, held_alone, weights_alone), (together, held, weights) = found[1], found[2]
    assert together == pytest.approx(alone, rel=1e-5)
    assert together[-1] < together[0]
    for name, tensor in weights_alone.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)
    assert held < 0.6 * held_alone
    plain = click_ranker()
    plain.load_state_dict(weights)
    before = click_ranker().state_dict()
    moved = [name for name in weights if ".trunk.tables." in name and not weights[name].equal(before[name])]
    assert moved
