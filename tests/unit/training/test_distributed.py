"""Two processes learn what one does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import ROOT
from data_exchange_center.workspace import read_json, read_table
from offline.models.layers import Sides
from offline.rank.click_data import EncodedParts, RawRows, fitted_encoder
from offline.rank.click_run import METRICS, open_run, train_run
from offline.rank.evaluate import evaluate_run
from offline.rank.export import export_run
from offline.rank.predict import predict_files
from offline.training.dataset import LikeBatch
from offline.training.distributed import ALONE, Processes
from offline.training.sharded_tables import ShardedNetwork
from offline.training.shares import OwnBatches, SharedBatches, part_of
from offline.training.trainer import CHECKPOINTS
from tests.servers.process import free_port
from tests.unit.rank.click_files import click_files, files_config
from tests.unit.training.clicks import click_ranker
from tests.unit.training.one_of_two import RESUMED, RUNS, STREAMED, config_of, train_and_keep

pytestmark = pytest.mark.usefixtures("kept_operators")
CACHED = [name for name, values in RUNS.items() if values.get("data.cache", True)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return click_files(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def together(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one_of_two.py, by two processes."""
    folder = tmp_path_factory.mktemp("together")
    program = str(ROOT / "tests/unit/training/one_of_two.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", program]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command += [str(rows), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def weights(folder: Path, rank: int = 0) -> dict[str, Tensor]:
    """What a run became, as a process saw it after the last step."""
    return load_file(folder / f"weights-{rank}")


@pytest.mark.parametrize("name", CACHED)
def test_losses_and_weights_are_those_of_one_process(rows: Path, together: Path, tmp_path: Path, name: str) -> None:
    alike = {"distributed.tables": "whole"}
    train_and_keep(config_of(rows, tmp_path, name).with_values(**alike), tmp_path)
    expected, found = (read_json(folder / METRICS)["history"] for folder in (tmp_path, together / name))
    for ours, theirs in zip(found, expected, strict=True):
        for metric in ("train_loss", "validation_logloss"):
            assert ours[metric] == pytest.approx(theirs[metric], rel=1e-5)
        for metric in ("train_auc", "validation_auc"):
            assert ours[metric] == pytest.approx(theirs[metric], abs=1e-3)
        assert [ours.get(fact) for fact in ("rows", "step", "ids")] == [
            theirs.get(fact) for fact in ("rows", "step", "ids")
        ]
    alone, several = weights(tmp_path), weights(together / name)
    assert set(alone) == set(several)
    for key, tensor in alone.items():
        torch.testing.assert_close(several[key], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in RUNS if "sharded" not in name])
def test_all_processes_hold_the_same_network(together: Path, name: str) -> None:
    first, second = weights(together / name), weights(together / name, 1)
    assert all(tensor.equal(second[key]) for key, tensor in first.items() if not key.endswith(".generator"))
    assert set(first) == set(second)


def test_a_process_holds_its_part_of_sharded_tables(together: Path) -> None:
    held = [int((together / "sharded" / f"held-{rank}").read_text()) for rank in (0, 1)]
    tables = sum(table.numel() for key, table in weights(together / "sharded").items() if ".trunk.tables." in key)
    assert (
        sum(held) >= tables and max(held) - min(held) <= 2 * 8
    )  # a row more of each of two tables, padded to 8 numbers


@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_and_resumed_run_is_equal_to_the_last_bit(together: Path, name: str) -> None:
    whole, killed = together / name, together / f"{name}, killed"
    assert weights(whole).keys() == weights(killed).keys()
    assert all(tensor.equal(weights(killed)[key]) for key, tensor in weights(whole).items())
    assert read_json(whole / METRICS)["history"] == read_json(killed / METRICS)["history"]


@pytest.mark.parametrize("name", [name for name in RUNS if name not in CACHED])
def test_streamed_epochs_have_every_row(together: Path, name: str) -> None:
    history = read_json(together / name / METRICS)["history"]
    assert [line["rows"] for line in history] == [1200, 1200]
    assert history[-1]["validation_auc"] > 0.7


def test_a_sharded_run_is_judged_scored_and_exported_as_any_other(rows: Path, together: Path, tmp_path: Path) -> None:
    run = together / "sharded"
    measured = read_json(run / METRICS)
    judged = evaluate_run(run, "validation", "all")["evaluated"]
    for line, one in zip(measured["history"], judged, strict=True):
        assert one["logloss"] == pytest.approx(line["validation_logloss"], rel=1e-6)
    predict_files(run, [rows / "new.parquet"], tmp_path / "scores.parquet")
    assert len(read_table(tmp_path / "scores.parquet")) == 300
    assert export_run(run)["parity"]["max_abs_delta"] <= 1e-6
    last = open_run(run, epoch=2).ranker.state_dict()
    assert all(tensor.equal(last[key]) for key, tensor in weights(run).items())


def test_another_number_of_processes_goes_on_with_a_sharded_run(
    rows: Path, together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(together / "sharded", tmp_path / "one")
    (tmp_path / "one" / METRICS).unlink()
    shutil.rmtree(max((tmp_path / "one" / CHECKPOINTS).iterdir()))
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    train_run(config_of(rows, tmp_path / "one", "sharded"), resume=True)
    alone, several = (open_run(folder).ranker.state_dict() for folder in (tmp_path / "one", together / "sharded"))
    for key, tensor in several.items():
        torch.testing.assert_close(alone[key], tensor, rtol=1e-4, atol=1e-4)


def test_sharded_tables_need_torchrun(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="torchrun"):
        train_run(config_of(rows, tmp_path, "sharded"))


def test_a_missing_torchrec_is_named(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setitem(sys.modules, "torchrec.distributed.comm_ops", None)
    with pytest.raises(SettingsError, match="requirements-distributed.txt, or set distributed.tables=whole"):
        ShardedNetwork(click_ranker(), config_of(rows, tmp_path, "sharded"), ALONE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embeddings.grow": ["c*"]}, "tables whole"),
        ({"optimizer.embeddings.name": "adam"}, "sparse_adagrad and reg 0, not adam"),
        ({"optimizer.embeddings": {"name": "adagrad", "reg": 0.1}}, "not adagrad and 0.1"),
        ({"training.accumulate": 2}, "larger training.batch_size"),
        ({"training.warm_start": "runs/other", "training.warm_optimizer": True}, "warm_optimizer false"),
        ({"training.device": "auto"}, "training.device cpu"),
    ],
)
def test_what_cannot_be_sharded_is_named(rows: Path, tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        config_of(rows, tmp_path, "sharded").with_values(**values)


def batch_of(rows: int) -> LikeBatch:
    return LikeBatch(
        {"encoded.c": torch.arange(rows)}, Sides(torch.zeros(1, 0), torch.rand(rows, 2)), torch.arange(rows).float()
    )


@pytest.mark.parametrize("rows", [0, 1, 5, 8])
def test_the_parts_of_a_batch_are_all_of_it(rows: int) -> None:
    batch = batch_of(rows)
    parts = [part_of(batch, Processes(rank, 3).part(rows)) for rank in range(3)]
    assert torch.cat([part.labels for part in parts]).equal(batch.labels)
    assert torch.cat([part.inputs["encoded.c"] for part in parts]).equal(batch.inputs["encoded.c"])
    assert torch.cat([part.numbers.item for part in parts]).equal(batch.numbers.item)
    assert max(len(part.labels) for part in parts) - min(len(part.labels) for part in parts) <= 1


def test_alone_nothing_is_copied() -> None:
    batch = batch_of(3)
    assert ALONE.total(batch.labels) is batch.labels
    assert ALONE.gathered(batch.labels)[0] is batch.labels


def streamed(rows: Path, output: Path, **values: object) -> EncodedParts:
    """The encoded rows of a run that streams them."""
    config = files_config(rows, output, **(STREAMED | values))
    raw = RawRows(config, load_spec(config.features.spec))
    return EncodedParts(config, raw, fitted_encoder(raw, output), output)


def test_each_process_reads_its_own_part_of_the_files(rows: Path, tmp_path: Path) -> None:
    parts, numbers = streamed(rows, tmp_path), []
    for rank in range(2):
        source = parts.epochs(Processes(rank, 2))(1)
        assert isinstance(source, OwnBatches)
        numbers.append([batch.numbers.item for batch in source.source])
        assert [len(one) for one in numbers[-1]] == [50] * 12  # half of a batch of 100, of half of 1,200 rows
    whole = torch.cat([batch.numbers.item for batch in parts.epochs()(1)])
    found = torch.cat([torch.cat(own) for own in numbers])
    torch.testing.assert_close(found.sort(0).values, whole.sort(0).values)


@pytest.mark.parametrize(
    "values",
    [
        {"training.batch_size": 101},
        {"data.reader": "tests.unit.rank.click_files:TableReader"},
        {"features.select": [], "data.shuffle_rows": 0},
    ],
    ids=["unequal parts", "a reader that knows no ranks", "target encodings by place"],
)
def test_what_cannot_be_read_in_parts_is_read_by_all_and_shared(
    rows: Path, tmp_path: Path, values: dict[str, object]
) -> None:
    parts = streamed(rows, tmp_path, **values)
    shared = [parts.epochs(Processes(rank, 2))(1) for rank in range(2)]
    assert all(isinstance(source, SharedBatches) for source in shared)
    if "data.reader" not in values:
        assert sum(len(batch.labels) for source in shared for batch in source) == 1200


def test_positions_of_other_processes_are_refused(rows: Path, tmp_path: Path) -> None:
    source = streamed(rows, tmp_path).epochs(Processes(0, 2))(1)
    with pytest.raises(DataError, match="3 processes read.*not 2"):
        source.restore({"processes": [{}, {}, {}]})
    with pytest.raises(DataError, match="1 processes read.*not 2"):
        source.restore({"source": {}, "position": 0})
