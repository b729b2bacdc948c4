"""The loop: learns, accumulates exactly, goes on to the last bit, stops early."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from data_exchange_center.errors import DataError, SettingsError
from offline.models.ranker import Ranker
from offline.training.config import TrainConfig
from offline.training.trainer import CHECKPOINTS, EPOCHS, LOG, Trainer, best_epoch, bf16_pays, read_log
from tests.unit.training.clicks import ROWS, click_config, click_ranker, click_trainer


class Killed(Exception):
    """Stands for a kill: nothing is tidied up."""


def trained(config: TrainConfig, **options: Any) -> Trainer:
    trainer = click_trainer(config, **options)
    trainer.train()
    return trainer


def same(one: Trainer, other: Trainer) -> bool:
    first, second = one.ranker.state_dict(), other.ranker.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def die_at(trainer: Trainer, step: int) -> None:
    """Trains until some step has been taken, and dies before anything else is done."""
    take = trainer._step

    def deadly(group: list[Any]) -> None:
        take(group)
        if trainer.progress.step == step:
            raise Killed

    trainer._step = deadly  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trainer.train()


def test_it_learns_what_decides(tmp_path: Path) -> None:
    history = trained(
        click_config(tmp_path, **{"optimizer.dense.learning_rate": 0.01, "training.epochs": 6})
    ).progress.history
    assert history[-1]["train_auc"] > 0.75 and history[-1]["train_loss"] < history[0]["train_loss"]
    assert [line["rows"] for line in history] == [ROWS] * 6


@pytest.mark.parametrize(
    ("optimizer", "step"),
    [("sgd", 17), ("adam", 3), ("adam", 5), ("adam", 12), ("adam", 31), ("adamw", 17), ("adagrad", 17)],
)
def test_a_killed_and_resumed_run_is_equal_to_the_last_bit(tmp_path: Path, optimizer: str, step: int) -> None:
    values: dict[str, Any] = {
        "optimizer.dense.name": optimizer,
        "optimizer.embeddings.name": optimizer,
        "optimizer.schedule": "cosine",
    }
    if optimizer == "sgd":
        values |= {"optimizer.dense.momentum": 0.9, "optimizer.dense.reg": 1e-3}
    whole = trained(click_config(tmp_path / "whole", **values))
    config = click_config(tmp_path / "killed", **values)
    die_at(click_trainer(config), step)
    resumed = click_trainer(config)
    assert resumed.resume() == (step > 5)
    assert resumed.progress.step == (step - 1) // 5 * 5 or resumed.progress.step in (12, 24)
    resumed.train()
    assert same(whole, resumed)
    assert whole.progress.history == resumed.progress.history


def test_the_log_of_a_resumed_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    trained(click_config(tmp_path / "whole"))
    config = click_config(tmp_path / "killed")
    die_at(click_trainer(config), 17)
    resumed = click_trainer(config)
    resumed.resume()
    resumed.train()
    logs = [
        [{k: v for k, v in line.items() if k != "samples_per_s"} for line in read_log(tmp_path / name / LOG)]
        for name in ("whole", "killed")
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(("embeddings", "first_order"), [(1.0, 0.0), (0.0, 1.0)])
def test_first_order_weights_have_an_l2_of_their_own(tmp_path: Path, embeddings: float, first_order: float) -> None:
    values = {
        "optimizer.embeddings": {"name": "sgd", "learning_rate": 0.1, "reg": embeddings},
        "optimizer.first_order_reg": first_order,
        "optimizer.dense": {"name": "sgd", "learning_rate": 1e-9},
        "training.epochs": 1,
        "training.batch_size": ROWS,
    }
    plain = {**values, "optimizer.embeddings": {"name": "sgd", "learning_rate": 0.1}, "optimizer.first_order_reg": None}
    begun, networks = click_ranker(dropout=0.0), (click_ranker(dropout=0.0), click_ranker(dropout=0.0))
    for network in (begun, *networks):
        for table in tables_of(network):
            table.data[1:, -1] = 0.5
    trained(click_config(tmp_path / "decayed", **values), ranker=networks[0])
    trained(click_config(tmp_path / "plain", **plain), ranker=networks[1])
    for before, decayed, free in zip(*map(tables_of, (begun, *networks)), strict=True):
        torch.testing.assert_close((free - decayed)[:, :-1], 0.1 * embeddings * before[:, :-1])
        torch.testing.assert_close((free - decayed)[:, -1], 0.1 * first_order * before[:, -1])


def tables_of(ranker: Ranker) -> list[torch.nn.Parameter]:
    return list(ranker.member(0).trunk.tables.sizes.parameters())


def test_accumulation_is_one_step_on_a_large_batch(tmp_path: Path) -> None:
    large = click_config(tmp_path / "large", **{"training.batch_size": 250})  # 250, 250, 100
    parts = click_config(tmp_path / "parts", **{"training.batch_size": 50, "training.accumulate": 5})
    one, other = (trained(config, ranker=click_ranker(dropout=0.0)) for config in (large, parts))
    assert one.progress.step == other.progress.step == 9
    for name, tensor in one.ranker.state_dict().items():
        torch.testing.assert_close(other.ranker.state_dict()[name], tensor, atol=2e-6, rtol=1e-4)


def test_members_learn_side_by_side_as_if_alone(tmp_path: Path) -> None:
    pair = click_ranker(members=2, dropout=0.0)
    single = click_ranker(dropout=0.0)
    single.member(0).load_state_dict(pair.member(1).state_dict())
    trained(click_config(tmp_path / "pair"), ranker=pair)
    trained(click_config(tmp_path / "single"), ranker=single)
    for name, tensor in single.member(0).state_dict().items():
        torch.testing.assert_close(pair.member(1).state_dict()[name], tensor, atol=1e-6, rtol=1e-4)


def test_training_ends_when_validation_does_not_become_better(tmp_path: Path) -> None:
    values = iter([0.6, 0.7, 0.69, 0.7, 0.9])
    config = click_config(tmp_path, **{"data.validation": ["memory"], "training.patience": 2, "training.epochs": 5})
    history = trained(config, judge=lambda: {"auc": next(values)}).progress.history
    assert len(history) == 4 and best_epoch(history, "auc") == 2
    assert sorted(path.name for path in (tmp_path / EPOCHS).iterdir()) == [f"epoch-000{n}" for n in (1, 2, 3, 4)]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    trained(click_config(tmp_path, **{"training.keep": 2}))
    assert sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir()) == ["step-000000035", "step-000000036"]


def test_bf16_learns_and_keeps_float32_weights(tmp_path: Path) -> None:
    run = trained(
        click_config(tmp_path, **{"training.bf16": True, "optimizer.dense.learning_rate": 0.01, "training.epochs": 6})
    )
    assert run.progress.history[-1]["train_auc"] > 0.7
    assert all(tensor.dtype == torch.float32 for tensor in run.ranker.state_dict().values())


def test_a_cpu_that_multiplies_no_bf16_learns_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("offline.training.trainer.multiplies_bf16", lambda: True)
    assert bf16_pays(True, cpu) and not bf16_pays(False, cpu) and not caplog.messages
    monkeypatch.setattr("offline.training.trainer.multiplies_bf16", lambda: False)
    assert not bf16_pays(True, cpu) and "no bfloat16" in caplog.text
    assert bf16_pays(True, torch.device("cuda"))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    config = click_config(tmp_path)
    trained(config)
    with pytest.raises(DataError, match="another network"):
        click_trainer(config, ranker=click_ranker(members=2)).resume()


def test_no_rows_are_an_error(tmp_path: Path) -> None:
    class Nothing:
        def __iter__(self) -> Any:
            return itertools.chain()

    with pytest.raises(DataError, match="no row"):
        Trainer(click_ranker(), click_config(tmp_path), lambda epoch: Nothing(), tmp_path).train()  # type: ignore[arg-type, return-value]


def test_a_diverged_run_says_so(tmp_path: Path) -> None:
    wild = {"name": "sgd", "learning_rate": 100.0, "momentum": 0.99}
    values = {"optimizer.dense": wild, "optimizer.embeddings": wild, "training.epochs": 20}
    config = click_config(tmp_path, **values)
    with pytest.raises(DataError, match="not finite|not a number"):
        trained(config)


def test_a_schedule_needs_the_number_of_steps(tmp_path: Path) -> None:
    config = click_config(tmp_path, **{"optimizer.schedule": "cosine"})
    with pytest.raises(SettingsError, match="constant"):
        Trainer(click_ranker(), config, lambda epoch: None, tmp_path)  # type: ignore[arg-type, return-value]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_missing_gpu_is_an_error_only_when_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no GPU"):
        click_trainer(click_config(tmp_path, **{"training.device": "cuda"}))
    assert click_trainer(click_config(tmp_path, **{"training.device": "auto"})).device.type == "cpu"
