"""A run that goes on from another one: its weights, its optimizers' state, its vocabularies, and rows for ids that came since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_exchange_center.errors import DataError, MarqueeError, SettingsError
from data_exchange_center.vocabulary import FIRST, UNKNOWN, Vocabulary
from offline.models.ranker import Ranker
from offline.rank.click_run import NETWORK, open_run, train_run
from offline.rank.export import export_run
from offline.rank.warm_start import fresh_ids
from offline.training.checkpoint import newest_checkpoint
from offline.training.config import TrainConfig
from offline.training.trainer import CHECKPOINTS, Trainer
from tests.unit.rank.click_files import click_table, files_config

SPEC = """
scene: clicks
features:
  - {name: i1, entity: candidate, type: numeric, transform: [log1p, standardize]}
  - {name: brand, entity: candidate, type: categorical, dtype: int64, vocabulary: {policy: growing, capacity: 12}, embedding: 4}
"""
BRANDS = ("一", "two", "three", "four", "five", "six", "new")  # the last one appears later


def rows_of(path: Path, count: int, seed: int, brands: int) -> Path:
    """Clicks whose brand decides; null ids of the tiny table become the first brand's."""
    table = click_table(count, seed)
    ids = np.random.default_rng(seed).integers(0, brands, count) + FIRST
    labels = (np.random.default_rng(seed + 1).random(count) < np.where(ids % 2, 0.8, 0.2)).astype(np.float32)
    pq.write_table(pa.table({"label": labels, "i1": table["i1"], "brand": ids}), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "clicks.yaml").write_text(SPEC, encoding="utf-8")
    rows_of(folder / "before.parquet", 600, 0, 6)
    rows_of(folder / "after.parquet", 400, 2, 7)
    Vocabulary("brand", BRANDS[:-1], 12).save(folder / "before")
    Vocabulary("brand", BRANDS, 12).save(folder / "after")
    return folder


def config_of(files: Path, output: Path, day: str, **values: Any) -> TrainConfig:
    fixed = {
        "data.train": [f"{day}.parquet"],
        "data.validation": [],
        "data.test": [],
        "features.vocabularies": str(files / day),
        "training.epochs": 1,
        "training.save_every": 0,
        "optimizer.schedule": "constant",
    }
    return files_config(files, output, **(fixed | values))


@pytest.fixture(scope="module", params=["adam", "sparse_adamw"])
def first(request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / request.param
    train_run(config_of(files, folder, "before", **{"optimizer.embeddings.name": request.param}))
    return folder


def again(files: Path, first: Path, output: Path, **values: Any) -> TrainConfig:
    given = {
        "training.warm_start": str(first),
        "training.warm_optimizer": True,
        "optimizer.embeddings.name": first.name,
    }
    return config_of(files, output, "after", **(given | values))


def table_of(ranker: Ranker) -> torch.Tensor:
    """Rows of the brand's table by id, without padding's."""
    return ranker.member(0).trunk.tables.of("brand")


def test_rows_that_nobody_owns_are_unknowns(first: Path) -> None:
    rows = table_of(Ranker.load(first / NETWORK))
    unknown = rows[UNKNOWN - 1]
    assert (rows[FIRST - 1 + 6 :] == unknown).all()
    assert not (rows[FIRST - 1 : FIRST - 1 + 6] == unknown).all(1).any()
    assert not torch.equal(unknown, torch.zeros_like(unknown))


def test_it_begins_with_weights_and_optimizer_state_and_new_ids_as_unknown(
    files: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def look(self: Trainer) -> list[dict[str, Any]]:
        seen["rows"] = table_of(self.ranker).clone()
        seen["state"] = [optimizer.state_dict() for optimizer in self.optimizers]
        seen["rates"] = {group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups}
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", look)
    rates = {"optimizer.dense.learning_rate": 1e-3, "optimizer.embeddings.learning_rate": 1e-3}
    with pytest.raises(KeyboardInterrupt):
        train_run(again(files, first, tmp_path / "second", **rates))
    before = table_of(Ranker.load(first / NETWORK))
    assert torch.equal(seen["rows"], before) and torch.equal(before[FIRST + 5], before[UNKNOWN - 1])
    assert seen["rates"] == {1e-3}
    saved = newest_checkpoint(first / CHECKPOINTS)
    assert saved is not None
    moments = [content["state"]["0"]["exp_avg"] for content in saved.state["optimizers"]]
    now = [content["state"][0]["exp_avg"] for content in seen["state"]]
    new_row = FIRST + 6  # of the table: padding is row 0
    for one, other in zip(moments, now, strict=True):
        if one.dim() == 2 and one.shape[1] == 5 and len(one) == FIRST + 12:  # the brand's table: embedding and weight
            assert not other[new_row].any()
            other[new_row] = one[new_row]
            assert one.any()
        assert torch.equal(one, other)


def test_what_came_since_is_learned_and_served_by_its_id(files: Path, first: Path, tmp_path: Path) -> None:
    train_run(again(files, first, tmp_path / "second"))
    rows = table_of(Ranker.load(tmp_path / "second" / NETWORK))
    assert not torch.equal(rows[FIRST + 5], rows[UNKNOWN - 1]) and torch.equal(rows[FIRST + 6], rows[UNKNOWN - 1])
    assert open_run(tmp_path / "second").parts().encoder.vocabularies["brand"].tokens == BRANDS
    exported = export_run(tmp_path / "second")
    assert exported["parity"]["max_abs_delta"] <= 1e-5
    session = ort.InferenceSession(exported["path"])
    ids = np.array([UNKNOWN, FIRST + 6, FIRST + 7, FIRST + 11, 10**9, -1], np.int64)
    (scores,) = session.run(["like"], {"i1": np.ones(6, np.float32), "brand": ids})
    assert scores[0] != scores[1] and (scores[2:] == scores[0]).all()


def test_the_run_resumes_without_going_back_to_the_other(files: Path, first: Path, tmp_path: Path) -> None:
    config = again(files, first, tmp_path / "second", **{"training.epochs": 2})
    whole = train_run(config)
    cut = again(files, first, tmp_path / "cut", **{"training.epochs": 2})
    finish = Trainer._finish_epoch

    def deadly(self: Trainer) -> None:
        finish(self)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_finish_epoch", deadly)
        with pytest.raises(KeyboardInterrupt):
            train_run(cut)
    assert train_run(cut, resume=True)["history"] == whole["history"]


def test_a_vocabulary_that_renumbers_is_refused(files: Path, first: Path, tmp_path: Path) -> None:
    Vocabulary("brand", ("two", "一"), 12).save(tmp_path / "other")
    values = {"features.vocabularies": str(tmp_path / "other")}
    with pytest.raises(DataError, match="no continuation.*'two' had id 3"):
        train_run(again(files, first, tmp_path / "second", **values))


def test_growing_ids_without_their_vocabulary_are_named(files: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="features.vocabularies"):
        train_run(config_of(files, tmp_path / "a", "before", **{"features.vocabularies": ""}))
    Vocabulary("brand", BRANDS, 7).save(tmp_path / "small")
    with pytest.raises(DataError, match="capacity is 7"):
        train_run(config_of(files, tmp_path / "b", "before", **{"features.vocabularies": str(tmp_path / "small")}))


def test_ids_of_evicted_tokens_begin_anew() -> None:
    before = Vocabulary("brand", ("a", "b", "c"), 5)
    after = before.evict(["b"], "gone", "2026-01-01").grown(["d", "e", "f"]).vocabulary
    assert fresh_ids(before, after).tolist() == [FIRST + 1, FIRST + 3, FIRST + 4]


def test_what_a_warm_start_needs_is_named(files: Path, first: Path, tmp_path: Path) -> None:
    with pytest.raises(MarqueeError, match="needs training.warm_start"):
        config_of(files, tmp_path, "before", **{"training.warm_optimizer": True})
    with pytest.raises(DataError, match="not there"):
        given = {"training.warm_start": str(tmp_path / "none")}
        train_run(again(files, first, tmp_path / "second", **given))
