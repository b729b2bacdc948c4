"""Trees that a library grew say the same as tensors; a run calibrates, saves and scores with both."""

from __future__ import annotations

import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_exchange_center.errors import SettingsError
from offline.rank.click_run import NETWORK, open_run, train_run
from offline.training.boosting import boosted_trees, float32_at_most
from offline.training.config import TreesConfig
from tests.unit.rank.click_files import click_files, files_config

SMALL = TreesConfig(count=12, depth=3, least_rows=20, learning_rate=0.2)


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    numbers = random.standard_normal((count, 5)).astype(np.float32).round(2)  # many rows meet at a threshold
    wanted = numbers[:, 0] * numbers[:, 1] > 0.1
    return numbers, (random.random(count) < np.where(wanted, 0.8, 0.2)).astype(np.float32)


def test_tensors_say_what_the_library_says(monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[lightgbm.Booster] = []
    train = lightgbm.train
    monkeypatch.setattr(lightgbm, "train", lambda *given: grown.append(train(*given)) or grown[-1])
    trees = boosted_trees(*rows(800, 0), SMALL, seed=1, threads=1)
    numbers, _ = rows(400, 2)
    expected = grown[0].predict(numbers, raw_score=True)
    np.testing.assert_allclose(trees(torch.from_numpy(numbers)).numpy(), expected, rtol=0, atol=1e-5)
    assert np.unique(expected).size > 50


def test_what_trees_learned_holds_for_other_rows() -> None:
    numbers, labels = rows(1000, 3)
    said = boosted_trees(numbers, labels, SMALL, seed=0, threads=1)(torch.from_numpy(rows(500, 4)[0])).numpy()
    others = rows(500, 4)[1]
    assert said[others == 1].mean() > said[others == 0].mean() + 0.1


def test_rows_that_nothing_tells_apart_get_the_mean() -> None:
    labels = np.array([1.0, 0.0, 0.0, 0.0] * 50, np.float32)
    trees = boosted_trees(np.zeros((200, 2), np.float32), labels, SMALL, seed=0, threads=1)
    assert trees(torch.zeros(1, 2)).sigmoid().item() == pytest.approx(0.25, abs=1e-3)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9, width=32))
def test_a_threshold_in_float32_divides_float32_numbers_as_before(threshold: float, number: float) -> None:
    assert (np.float32(number) > float32_at_most(threshold).item()) == (number > threshold)


def test_a_run_with_trees_predicts_and_is_calibrated_with_them(tmp_path: Path) -> None:
    files = click_files(tmp_path / "files")
    values = {"training.epochs": 1, "trees": SMALL.model_dump(mode="json")}
    result = train_run(files_config(files, tmp_path / "run", **values))
    alone = train_run(files_config(files, tmp_path / "alone", **{"training.epochs": 1}))
    assert result["trees"] > 0 and alone["trees"] == 0
    assert result["metrics"]["test"]["auc"] != alone["metrics"]["test"]["auc"]
    assert result["calibration"] != alone["calibration"]
    assert result["history"] == alone["history"]
    reopened = open_run(tmp_path / "run")
    assert reopened.ranker.trees is not None and (tmp_path / "run" / NETWORK).exists()


def test_trees_without_numbers_or_without_all_rows_are_refused(tmp_path: Path) -> None:
    files = click_files(tmp_path / "files")
    with pytest.raises(SettingsError, match="numbers"):
        train_run(files_config(files, tmp_path / "run", **{"trees.count": 2, "features.select": ["c1", "c2"]}))
    with pytest.raises(SettingsError, match=r"data\.cache"):
        files_config(files, tmp_path / "run", **{"trees.count": 2, "data.cache": False})


def test_a_machine_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(SettingsError, match="libgomp1"):
        boosted_trees(*rows(10, 0), SMALL, seed=0, threads=1)
