"""A run from files to a folder: learns, is judged, goes on where it was killed, refuses what would mix runs up."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError, MarqueeError, SettingsError
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.workspace import read_json
from offline.models.ranker import Ranker
from offline.models.registry import FILES, architecture
from offline.rank.click_data import EncodedParts, RawRows, fitted_encoder
from offline.rank.click_run import CONFIG, CURVES, METRICS, NETWORK, new_ranker, open_run, train_run
from offline.rank.click_scores import load_scores
from offline.training.metrics import auc
from offline.training.trainer import CHECKPOINTS, Trainer
from tests.unit.rank.click_files import click_files, files_config


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return click_files(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def parts(files: Path, tmp_path_factory: pytest.TempPathFactory) -> EncodedParts:
    config = files_config(files, tmp_path_factory.mktemp("fuzz"))
    rows, prepared = RawRows(config, load_spec(config.features.spec)), Path(config.training.output)
    return EncodedParts(config, rows, fitted_encoder(rows, prepared), prepared)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Ranker.load(folder / NETWORK).state_dict()


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_learns_and_leaves_all_that_is_about_it(files: Path, tmp_path: Path) -> None:
    result = train_run(files_config(files, tmp_path, **{"training.group": "c2"}))
    assert result["metrics"]["test"]["auc"] > 0.75 and result["metrics"]["test"]["gauc_users"] > 20
    assert result["rows"] == {"train": 1200, "validation": 400, "test": 400}
    labels, probabilities = load_scores(tmp_path / "predictions" / "test.parquet")
    assert auc(labels, probabilities) == result["metrics"]["test"]["auc"]
    assert labels.tolist() == pq.read_table(files / "test.parquet")["label"].to_pylist()
    assert (tmp_path / CURVES).stat().st_size > 10_000
    assert read_json(tmp_path / METRICS) == result
    assert open_run(tmp_path).ranker.config.heads == ("like",)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_files_without_a_row_are_named_before_anything_is_learned(files: Path, tmp_path: Path, part: str) -> None:
    pq.write_table(pq.read_table(files / "train-0.parquet").slice(0, 0), tmp_path / "empty.parquet")
    config = files_config(files, tmp_path / "run", **{f"data.{part}": [str(tmp_path / "empty.parquet")]})
    with pytest.raises(DataError, match=r"empty\.parquet: there is no row"):
        train_run(config)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_linear_layers_begin_as_the_settings_say(files: Path, tmp_path: Path, parts: EncodedParts) -> None:
    values = {"model.options": {"hidden": [200, 100], "deep_fm": False}, "model.initializer": "xavier_normal"}
    made = new_ranker(files_config(files, tmp_path, **values), parts).member(0).heads["like"]
    layers = [layer for layer in made.modules() if isinstance(layer, torch.nn.Linear)]
    for layer in layers[:-1]:
        expected = (2 / (layer.in_features + layer.out_features)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
    assert not any(layer.bias.any() for layer in layers)


@pytest.mark.parametrize(
    ("cache", "embeddings", "grow"),
    [
        (True, "adam", []),
        (False, "adam", []),
        (True, "sparse_adamw", []),
        (False, "sparse_adagrad", []),
        (True, "sparse_adamw", ["c*"]),
        (False, "sparse_adagrad", ["c2"]),
    ],
)
def test_a_run_killed_within_an_epoch_ends_like_one_never_stopped(
    files: Path, tmp_path: Path, cache: bool, embeddings: str, grow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, object] = {"data.cache": cache, "data.shuffle_rows": 250, "features.select": ["i1", "c1", "c2"]}
    values |= {"optimizer.embeddings.name": embeddings, "model.members": 2}
    values |= {"embeddings.grow": grow, "embeddings.admit_after": 3, "embeddings.evict_after_steps": 1}
    train_run(files_config(files, tmp_path / "whole", **values))
    config = files_config(files, tmp_path / "killed", **values)
    step = Trainer._step

    def deadly(self: Trainer, group: list) -> None:
        step(self, group)
        if self.progress.step == 19:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_step", deadly)
    with pytest.raises(KeyboardInterrupt):
        train_run(config)
    monkeypatch.undo()
    newest = sorted((tmp_path / "killed" / CHECKPOINTS).iterdir())[-1]
    (newest / "state.json").write_text("torn", encoding="utf-8")
    train_run(config, resume=True)
    assert same(tmp_path / "whole", tmp_path / "killed")
    histories = [read_json(tmp_path / name / METRICS)["history"] for name in ("whole", "killed")]
    assert histories[0] == histories[1]
    assert not grow or histories[0][-1]["ids"]["evicted"] > 0


@pytest.mark.parametrize(
    "wrong", [{"model.name": "deepfmm"}, {"features.spec": "gone"}, {"data.validation": ["gone.parquet"]}]
)
def test_a_wrong_name_leaves_no_run_that_stands_in_the_way(files: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(MarqueeError, match="deepfmm|gone"):
        train_run(files_config(files, tmp_path, **wrong))
    assert not (tmp_path / CONFIG).exists()


def test_a_folder_is_not_overwritten_and_settings_do_not_change_within_a_run(files: Path, tmp_path: Path) -> None:
    config = files_config(files, tmp_path, **{"training.epochs": 1})
    result = train_run(config)
    with pytest.raises(SettingsError, match="holds a run already"):
        train_run(config)
    assert train_run(config, resume=True) == result
    with pytest.raises(SettingsError, match="training.seed was 0 and is 1"):
        train_run(config.with_values(**{"training.seed": 1}), resume=True)


def test_a_warm_start_takes_encoder_and_weights_and_names_what_differs(
    files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_run(files_config(files, tmp_path / "first"))
    values = {"training.warm_start": str(tmp_path / "first"), "model.options": {"hidden": [6], "fm_size": 4}}
    started = train_run(files_config(files, tmp_path / "second", **values))
    cold = train_run(files_config(files, tmp_path / "cold", **{"model.options": {"hidden": [6], "fm_size": 4}}))
    assert started["history"][0]["train_loss"] < cold["history"][0]["train_loss"]
    assert "is [6" in caplog.text and "[8" in caplog.text
    with pytest.raises(DataError, match="warm_start|weights to start|not there"):
        train_run(files_config(files, tmp_path / "third", **{"training.warm_start": str(tmp_path / "none")}))


def test_a_shuffled_stream_of_target_encodings_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="data.cache=true"):
        train_run(files_config(files, tmp_path / "a", **{"data.cache": False}))
    train_run(
        files_config(files, tmp_path / "b", **{"data.cache": False, "data.shuffle_rows": 0, "training.epochs": 1})
    )


def test_runs_share_what_they_prepared_only_while_the_files_are_the_same(files: Path, tmp_path: Path) -> None:
    shared = {"data.prepared": str(tmp_path / "prepared"), "training.epochs": 1}
    for name in ("a", "b"):
        train_run(files_config(files, tmp_path / name, **shared))
    assert len(list((tmp_path / "prepared").iterdir())) == 4  # an encoder, three parts
    train_run(files_config(files, tmp_path / "c", **shared, **{"data.train": ["train-0.parquet"]}))
    assert len(list((tmp_path / "prepared").iterdir())) == 8


def test_a_reader_of_ones_own_is_trained_from(files: Path, tmp_path: Path) -> None:
    values = {"data.reader": "tests.unit.rank.click_files:TableReader", "optimizer.schedule": "constant"}
    for cache in (True, False):
        own = files_config(files, tmp_path / f"own-{cache}", **values, **{"data.cache": cache, "data.shuffle_rows": 0})
        built_in = own.with_values(**{"data.reader": "", "training.output": str(tmp_path / f"built-in-{cache}")})
        assert train_run(own)["history"] == train_run(built_in)["history"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.name": "nothing"}, "unknown model"),
        ({"model.options": {"hiden": [3]}}, "hiden"),
        ({"model.options": {"hidden": "wide"}}, "hidden"),
        ({"model.options": {"hidden": []}}, "hidden"),
        ({"model.options": {"hidden": [-3]}}, "hidden"),
        ({"model.options": {"hidden": [2**40]}}, "hidden"),
        ({"model.options": {"fm_size": 2.0**31}}, "fm_size"),
        ({"model.preset": "none"}, "preset"),
        ({"features.select": ["c9"]}, "c9"),
        ({"features.spec": "none"}, "no such feature spec"),
        ({"data.train": ["none.parquet"]}, "none.parquet"),
        ({"data.reader": "no.such:reader"}, "no.such"),
        ({"training.group": "c9"}, "c9"),
    ],
)
def test_what_cannot_work_is_named(files: Path, tmp_path: Path, values: dict, message: str) -> None:
    with pytest.raises(MarqueeError, match=message):
        train_run(files_config(files, tmp_path, **values))


def test_malformed_rows_that_are_skipped_are_counted(
    files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = pq.read_table(files / "train-0.parquet").to_pylist()
    cells = [["" if row[name] is None else f"{row[name]:.0f}" for name in ("label", "i1", "c1", "c2")] for row in lines]
    text = ["\t".join([label, i1, *(f"{int(cell):x}" if cell else "" for cell in ids)]) for label, i1, *ids in cells]
    (tmp_path / "rows.tsv").write_text("\n".join([*text[:300], "no row", *text[300:], ""]), encoding="utf-8")
    values = {"data.train": [str(tmp_path / "rows.tsv")], "training.epochs": 1}
    with pytest.raises(DataError, match="301"):
        train_run(files_config(files, tmp_path / "raise", **values))
    result = train_run(files_config(files, tmp_path / "skip", **values, **{"data.on_error": "skip"}))
    assert result["rows"]["train"] == 600 and "train: 1 malformed rows were left out of 601" in caplog.text


VALUES = (
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=4) | st.lists(st.integers(-3, 20))
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(FILES))
def test_fuzzed_options_give_a_network_or_a_clear_error(
    data: st.DataObject, name: str, parts: EncodedParts, files: Path, tmp_path: Path
) -> None:
    known = [field.name for field in fields(architecture(name).options)]
    options = data.draw(st.dictionaries(st.sampled_from([*known, "other"]), VALUES, max_size=3))
    config = files_config(files, tmp_path).with_values(**{"model.name": name, "model.options": options})
    try:
        made = new_ranker(config, parts)
    except SettingsError as error:
        assert name in error.message
    else:
        assert isinstance(made, Ranker)
