"""A run's settings: read, overridden, refused with a clear message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import ROOT
from data_exchange_center.validation import known_names
from offline.training.config import TrainConfig, load_config

SMALL = "data: {train: [rows.parquet]}\ntraining: {output: run}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_is_valid_and_names_every_section() -> None:
    path = ROOT / "docs" / "examples" / "criteo.yaml"
    load_config(path)
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == set(TrainConfig.model_fields)


def test_bins_are_none_or_several(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="2 bins or more"):
        load_config(written(tmp_path, SMALL), ["features.quantiles=1"])


def test_overrides_win_and_take_json_and_yaml(tmp_path: Path) -> None:
    changes = [
        "optimizer.dense.learning_rate=1e-2",
        "model.options.hidden=[8,4]",
        "model.options.dropout=1e-1",
        "training.bf16=true",
        "model.name=lr",
        "data.test=[a.orc, b.orc]",
    ]
    config = load_config(written(tmp_path, SMALL), changes)
    assert config.optimizer.dense.learning_rate == 0.01 and config.training.bf16 and config.model.name == "lr"
    assert config.model.options == {"hidden": [8, 4], "dropout": 0.1}
    assert config.data.test == ["a.orc", "b.orc"]
    assert config.changed("training.seed=4").training.seed == 4


def test_paths_start_from_the_data_folder(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, SMALL), ["data.folder=/rows", "data.train=[a, /b]"])
    assert [str(path) for path in config.data.paths("train")] == ["/rows/a", "/b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epoch=3", "did you mean 'training.epochs'"),
        ("optimizer.dense.learning_rat=3", "did you mean 'optimizer.dense.learning_rate'"),
        ("trainning.epochs=3", "did you mean 'training'"),
        ("training.epochs=0", "training.epochs"),
        ("training.epochs=x", "training.epochs"),
        ("data.train.more=1", "no section"),
        ("training.epochs", "section.name=value"),
        ("optimizer.dense.weight_decay=0.1", "takes reg"),
        ("optimizer={embeddings: {name: adamw}, first_order_reg: 0.1}", "has none: use sgd, adam or adagrad"),
        ("training.patience=2", "needs data.validation"),
        ("training.metric=gauc", "needs training.group"),
        ("data.reader=os.system", "data.reader"),
        ("optimizer.dense.learning_rate=.nan", "learning_rate"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config(written(tmp_path, SMALL), [change])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mapping"),
        ("- a", "mapping"),
        ("a: [", "not valid YAML"),
        ("a: 1\na: 2\n", "stands twice"),
        ("data: 3\ntraining: {output: x}", "'data'"),
        ("training: {output: x}", "'data'"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(changes=st.dictionaries(st.sampled_from(known_names(TrainConfig)) | st.text(max_size=12), VALUES, max_size=4))
def test_fuzzed_values_give_a_config_or_a_clear_error(changes: dict[str, Any], tmp_path_factory: Any) -> None:
    path = written(tmp_path_factory.getbasetemp(), SMALL)
    try:
        config = load_config(path, [f"{name}={json.dumps(value)}" for name, value in changes.items()])
    except SettingsError as error:
        assert error.message and len(error.message) < 3000
    else:
        assert isinstance(config, TrainConfig)


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "ignore")))
def test_fuzzed_files_give_a_clear_error(content: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError):
        load_config(path)
