"""What people call: evaluate, predict, compare, study; each on a small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml

from data_exchange_center.errors import DataError, MarqueeError, SettingsError
from data_exchange_center.workspace import read_json
from offline.rank import compare, evaluate, predict, study, train
from offline.rank.click_run import open_run, train_run
from offline.rank.click_scores import load_scores
from offline.training.metrics import auc
from tests.unit.rank.click_files import click_files, files_config


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return click_files(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_run(files_config(files, folder))
    return folder


def test_a_range_of_epochs_is_judged_in_one_go(run: Path) -> None:
    result = evaluate.evaluate_run(run, "validation", "1-3")
    history = read_json(run / "metrics.json")["history"]
    assert [one["epoch"] for one in result["evaluated"]] == [1, 2, 3]
    assert [one["auc"] for one in result["evaluated"]] == [line["validation_auc"] for line in history]
    for one in result["evaluated"]:
        assert abs(one["auc"] - one["streaming_auc"]) <= one["streaming_auc_bound"] + 1e-12
    assert (run / "evaluation-validation.json").exists() and (run / "calibration-validation.png").exists()


def test_the_chosen_network_is_judged_as_it_was_when_training_ended(run: Path) -> None:
    found = evaluate.evaluate_run(run, "test")["evaluated"][0]
    assert found["auc"] == read_json(run / "metrics.json")["metrics"]["test"]["auc"]


@pytest.mark.parametrize("epochs", ["9", "2-9", "x", "3-1"])
def test_epochs_that_are_not_there_are_named(run: Path, epochs: str) -> None:
    with pytest.raises(SettingsError, match="epochs"):
        evaluate.evaluate_run(run, "test", epochs)


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv"])
def test_probabilities_come_in_the_order_of_the_rows(run: Path, files: Path, tmp_path: Path, name: str) -> None:
    made = predict.predict_files(run, [files / "test.parquet"], tmp_path / name, overrides=["inference.batch_size=37"])
    read = pq.read_table if name.endswith("parquet") else pa_csv.read_csv
    probabilities = read(tmp_path / name)["probability"].to_numpy()
    labels, expected = load_scores(run / "predictions" / "test.parquet")
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert made["rows"] == len(labels)


def test_rows_without_labels_are_predicted_and_not_judged(run: Path, files: Path, tmp_path: Path) -> None:
    assert predict.predict_files(run, [files / "new.parquet"], tmp_path / "new.csv")["rows"] == 300
    with pytest.raises(DataError, match="without labels"):
        evaluate.evaluate_run(run, "test", overrides=[f"data.test=[{files / 'new.parquet'}]"])


def test_a_prediction_that_fails_leaves_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MarqueeError):
        predict.predict_files(run, [tmp_path / "none.parquet"], tmp_path / "out.parquet")
    with pytest.raises(SettingsError, match="csv"):
        predict.predict_files(run, [tmp_path / "none.parquet"], tmp_path / "out.txt")
    with pytest.raises(DataError, match="no run"):
        open_run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_models_are_compared_and_finished_ones_not_trained_again(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = files_config(files, tmp_path, **{"model.options": {}, "training.epochs": 2})
    variants = compare.variants_of(["lr", "deepfm:guo"]) | {"slow": {"optimizer.dense.learning_rate": 1e-5}}
    first = compare.compare_models(config, variants, tmp_path, seeds=2, count=100)
    assert {one["name"] for one in first["models"]} == set(variants) and not first["failed"]
    assert first["reference"] == first["models"][0]["name"]
    scores = [one["validation_auc"] for one in first["models"]]
    assert scores == sorted(scores, reverse=True)
    for one in first["models"]:
        each = [
            load_scores(tmp_path / one["name"] / f"seed-{seed}" / "predictions" / "test.parquet") for seed in (0, 1)
        ]
        assert one["test_auc"]["value"] == pytest.approx(np.mean([auc(*pair) for pair in each]))
        assert one["test_auc"]["low"] <= one["test_auc"]["value"] <= one["test_auc"]["high"]
    assert first["models"][0]["test_auc_minus_reference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "picked on validation" in text and (tmp_path / "comparison.png").stat().st_size > 10_000

    monkeypatch.setattr(
        "offline.training.trainer.Trainer.train", lambda self: pytest.fail("a finished run was trained")
    )
    assert compare.compare_models(config, variants, tmp_path, seeds=2, count=100)["models"] == first["models"]


def test_models_that_pick_their_epoch_by_another_metric_are_ranked_by_it(files: Path, tmp_path: Path) -> None:
    config = files_config(files, tmp_path, **{"model.options": {}, "training.epochs": 1})
    variants = {name: {"model.name": name, "training.metric": "logloss"} for name in ("lr", "fm")}
    found = compare.compare_models(config, variants, tmp_path, count=20)
    losses = [one["validation_logloss"] for one in found["models"]]
    assert config.training.metric == "auc" and found["picked_by"] == "validation logloss" and losses == sorted(losses)


def test_a_model_that_fails_does_not_lose_the_others(files: Path, tmp_path: Path) -> None:
    config = files_config(files, tmp_path, **{"model.options": {}, "training.epochs": 1})
    result = compare.compare_models(config, compare.variants_of(["lr", "nothing"]), tmp_path, count=20)
    assert [one["name"] for one in result["models"]] == ["lr"] and "unknown model" in result["failed"]["nothing"]


def test_a_comparison_is_of_variants_that_differ(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("a: {model.name: lr}\nb: {model.name: fm}\n", encoding="utf-8")
    assert list(compare.variants_of(["dnn"], str(tmp_path / "v.yaml"))) == ["dnn", "a", "b"]
    for models in (["lr", "lr"], ["../x"], []):
        with pytest.raises(SettingsError):
            compare.variants_of(models)


def test_a_study_chooses_by_validation_alone(files: Path, tmp_path: Path) -> None:
    config = files_config(files, tmp_path)
    grid = study.grid_of(["optimizer.dense.learning_rate=[0.0001,0.02]", "model.options.hidden=[[4],[8,4]]"])
    result = study.study(config, grid, tmp_path)
    assert len(result["runs"]) == 4
    scores = [one["validation_auc"] for one in result["runs"]]
    assert scores == sorted(scores, reverse=True) and result["best"]["settings"] == result["runs"][0]["settings"]
    assert all("test" not in key for one in result["runs"] for key in one)
    assert (tmp_path / "study.png").stat().st_size > 10_000
    assert "chosen settings only" in (tmp_path / "study.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["a", "a=3", "a=[]", "=[1]", "a=[1,1]"])
def test_a_grid_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="grid"):
        study.grid_of([text])


@pytest.mark.parametrize("option", ["--data", "--store", "--holdout"])
def test_an_option_that_a_run_does_not_heed_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(["--config", "run.yaml", option, "none"])
    assert ended.value.code == 2 and f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_a_seed_given_beside_the_file_is_the_run_s(files: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(files_config(files, tmp_path).model_dump(mode="json")), encoding="utf-8"
    )
    arguments = train.config_parser("").parse_args(["--config", str(tmp_path / "run.yaml"), "--seed", "3"])
    assert train.config_of(arguments, "training.epochs=2").training.seed == 3


def test_train_is_a_program(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = files_config(files, tmp_path / "run", **{"training.epochs": 1}).model_dump(mode="json")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    arguments = ["--config", str(tmp_path / "run.yaml"), "--quiet", "--seed", "3"]
    with pytest.raises(SystemExit) as ended:
        train.main([*arguments, "--set", "training.batch_size=200"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code == 0 and printed["ok"] and printed["metrics"]["test"]["rows"] == 400
    with pytest.raises(SystemExit) as ended:
        train.main([*arguments, "--set", "training.batchsize=200"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code == 2 and "did you mean 'training.batch_size'" in printed["error"]["message"]
