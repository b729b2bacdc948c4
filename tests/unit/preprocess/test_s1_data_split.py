"""The first step: tables and split on disk, counts in its answer."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

from data_exchange_center.dataset_info import read_dataset_info
from data_exchange_center.settings import Settings
from data_exchange_center.tables import SPLIT_INTERACTIONS
from data_exchange_center.workspace import Workspace, read_json, read_table
from offline.preprocess.s1_data_split import main, split_data


def small(store: Path, **values: object) -> Settings:
    """A small generated dataset."""
    sizes = {"data.synthetic_users": 60, "data.synthetic_items": 70, "data.synthetic_events": 1800}
    return Settings().with_values(**{"data.dataset": "synthetic", "data.store": str(store), **sizes, **values})


@pytest.mark.parametrize("protocol", ["per_user", "global_time"])
def test_the_answer_counts_what_was_written(tmp_path: Path, protocol: str) -> None:
    chosen = small(tmp_path, **{"split.protocol": protocol})
    answer = split_data(chosen)
    table = SPLIT_INTERACTIONS.validate(read_table(Path(answer["written"])))
    for part in ("train", "test", "online"):
        rows = table.filter(pc.equal(table["split"], part))
        assert answer["rows"][part] == rows.num_rows
        assert answer["positives"][part] == sum(rows["label"].to_pylist())
        assert answer["positive_rate"][part] == round(answer["positives"][part] / rows.num_rows, 4)
        assert answer["users_in"][part] == len(set(rows["user_id"].to_pylist()))
    assert sum(answer["rows"].values()) == answer["interactions"] == 1800
    assert answer["early"] == sum(table["early"].to_pylist())
    workspace = Workspace(chosen)
    assert read_json(workspace.split / "split.json")["fingerprint"] == read_dataset_info(workspace).fingerprint


def test_both_protocols_keep_their_own_files(tmp_path: Path) -> None:
    written = {split_data(small(tmp_path, **{"split.protocol": one}))["written"] for one in ("per_user", "global_time")}
    assert len(written) == 2
    assert all(Path(path).exists() for path in written)


def test_the_program_prints_one_json_object_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--dataset", "synthetic", "--store", str(tmp_path), "--quiet"])
    assert ended.value.code == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["step"], answer["ok"]) == ("s1_data_split", True)
    assert sum(answer["rows"].values()) == 90_000


def test_movielens_100k_splits_into_the_published_counts(ml100k: Path, tmp_path: Path) -> None:
    chosen = Settings().with_values(**{"data.store": str(tmp_path), "data.source": str(ml100k)})
    answer = split_data(chosen)
    assert answer["rows"] == {"train": 72_823, "test": 17_747, "online": 9_430}
    assert answer["positive_rate"]["train"] == pytest.approx(0.575, abs=5e-4)
    assert answer["positive_rate"]["test"] == pytest.approx(0.471, abs=5e-4)
    assert (answer["users"], answer["items"], answer["interactions"]) == (943, 1682, 100_000)
    table = read_table(Path(answer["written"]))
    positives = table.filter(pc.and_(pc.equal(table["split"], "online"), pc.equal(table["label"], 1)))
    assert pc.count_distinct(positives["user_id"]).as_py() == 902


def test_movielens_100k_splits_by_time_into_parts_of_nearly_these_sizes(ml100k: Path, tmp_path: Path) -> None:
    values = {"data.store": str(tmp_path), "data.source": str(ml100k), "split.protocol": "global_time"}
    answer = split_data(Settings().with_values(**values))
    for part, rows in {"train": 72_823, "test": 17_747, "online": 9_430}.items():
        assert abs(answer["rows"][part] - rows) < 50
