"""Clicks: found in any layout, generated with a truth that holds, converted without loss."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_exchange_center.errors import DataError, DataUnavailable, SettingsError
from data_exchange_center.rows.schema import RowColumn, RowSchema, criteo_schema
from data_exchange_center.rows.slot_text import parse_slot_text
from data_exchange_center.settings import Settings
from offline.datasets.convert_rows import convert_rows
from offline.datasets.criteo import SAMPLE, check_clicks, find_clicks
from offline.datasets.criteo_synthetic import BLOCK, SyntheticClicks, write_synthetic
from offline.datasets.fetch import md5_of
from offline.datasets.row_writers import row_writer, slot_text, tsv_text
from offline.reading.reader import RowReader
from offline.training.metrics import auc, logloss
from tests.unit.rows.written import SCHEMA, numbered, table, tsv, write

ROWS = numbered(400)


def settings(tmp_path: Path, **data: Any) -> Settings:
    chosen = {"store": str(tmp_path / "store"), "dataset": "criteo", **data}
    return Settings().with_values(**{f"data.{name}": value for name, value in chosen.items()})


def read(paths: Any) -> pa.Table:
    reader = RowReader(paths, SCHEMA, batch_size=1000)
    return pa.Table.from_batches(list(reader), reader.schema.arrow)


def test_part_files_are_split_in_their_order(tmp_path: Path) -> None:
    for part in range(8):
        write(tmp_path / "rows" / f"part-{part}", ROWS[part * 50 : part * 50 + 50], "orc")
    clicks = find_clicks(settings(tmp_path, source=str(tmp_path / "rows")))
    assert [path.name for path in clicks.train] == [f"part-{part}" for part in range(6)]
    assert [path.name for path in clicks.validation + clicks.test] == ["part-6", "part-7"]


def test_named_folders_are_the_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write(tmp_path / "rows" / split / f"{split}.tsv", ROWS[:5], "tsv")
    clicks = find_clicks(settings(tmp_path, source=str(tmp_path / "rows")))
    assert [path.name for path in (*clicks.train, *clicks.validation, *clicks.test)] == [
        "train.tsv", "validation.tsv", "test.tsv",
    ]  # fmt: skip


@pytest.mark.parametrize("packed", ["folder", "tar.gz", "zip"])
def test_the_challenges_layout_is_converted_once(tmp_path: Path, packed: str) -> None:
    folder = tmp_path / "dac"
    write(folder / "train.txt", ROWS, "tsv")
    write(folder / "test.txt", ROWS[:7], "tsv", labelled=False)
    (folder / "readme.txt").write_text("Display Advertising Challenge\n")
    source = folder if packed == "folder" else tmp_path / f"dac.{packed}"
    if packed == "tar.gz":
        with tarfile.open(source, "w:gz") as archive:
            archive.add(folder, "dac")
    elif packed == "zip":
        with zipfile.ZipFile(source, "w") as zipped:
            for path in folder.iterdir():
                zipped.write(path, path.name)
    chosen = settings(tmp_path, source=str(source))
    clicks = find_clicks(chosen)
    assert read([*clicks.train, *clicks.validation, *clicks.test]).equals(table(ROWS))
    assert (len(clicks.train), len(clicks.validation), len(clicks.test)) == (6, 1, 1)
    assert [path.name for path in clicks.unlabelled] == ["test.txt"]
    written = clicks.test[0].stat().st_mtime_ns
    assert find_clicks(chosen).test[0].stat().st_mtime_ns == written
    summary = check_clicks(chosen)
    assert [summary[split]["rows"] for split in ("train", "validation", "test")] == [300, 50, 50]
    assert summary["unlabelled_files"] == 1


def test_what_cannot_be_reached_is_said_with_what_to_do(tmp_path: Path) -> None:
    away = settings(tmp_path, criteo_mirror="http://127.0.0.1:9/data")
    with pytest.raises(DataUnavailable, match=r"could not reach http://127.0.0.1:9/data/part-0.orc .*criteo-synthetic"):
        find_clicks(away)
    with pytest.raises(DataUnavailable, match="nowhere: no such file or folder"):
        find_clicks(settings(tmp_path, source=str(tmp_path / "nowhere")))
    with pytest.raises(SettingsError, match="'ml-1m' has no rows of clicks"):
        find_clicks(settings(tmp_path, dataset="ml-1m"))


def test_an_archive_that_is_torn_or_rows_without_labels_are_errors(tmp_path: Path) -> None:
    write(tmp_path / "dac" / "train.txt", ROWS, "tsv")
    with tarfile.open(tmp_path / "dac.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "dac", "dac")
    content = (tmp_path / "dac.tar.gz").read_bytes()
    (tmp_path / "dac.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="dac.tar.gz: cannot be unpacked"):
        find_clicks(settings(tmp_path, source=str(tmp_path / "dac.tar.gz")))
    path = write(tmp_path / "unlabelled.tsv", ROWS, "tsv", labelled=False)
    with pytest.raises(DataError, match="none of its files has labelled rows"):
        find_clicks(settings(tmp_path, source=str(path)))


def test_the_pinned_checksums_are_those_of_the_sample(criteo: Path) -> None:
    assert {archive.file: archive.md5 for archive in SAMPLE} == {
        path.name: md5_of(path) for path in criteo.glob("*.orc")
    }


def test_the_sample_is_read_whole(criteo: Path, tmp_path: Path) -> None:
    summary = check_clicks(settings(tmp_path, source=str(criteo)))
    assert [summary[split]["rows"] for split in ("train", "validation", "test")] == [60_000, 10_000, 10_000]
    assert summary["test"]["click_rate"] == 0.0345


def test_generated_rows_are_the_same_in_every_format_and_size(tmp_path: Path) -> None:
    made = {form: tmp_path / form for form in ("parquet", "tsv", "slot")}
    for form, folder in made.items():
        write_synthetic(folder, 3000, form=form, seed=5, rows_per_file=1200)  # type: ignore[arg-type]
    first = read(made["parquet"])
    assert len(first) == 3000
    assert len(list(made["parquet"].glob("part-*"))) == 3
    assert read(made["tsv"]).equals(first) and read(made["slot"]).equals(first)
    assert SyntheticClicks(5).block(0, 1200).rows.equals(first.slice(0, 1200).combine_chunks().to_batches()[0])
    assert not SyntheticClicks(6).block(0, 1200).rows.equals(SyntheticClicks(5).block(0, 1200).rows)


def test_what_is_best_possible_is_what_the_written_truth_reaches(tmp_path: Path) -> None:
    best = write_synthetic(tmp_path / "rows", 40_000, seed=2, click_rate=0.1, rows_per_file=25_000)
    labels = read(tmp_path / "rows")["label"].to_numpy()
    logit = np.concatenate(
        [pq.read_table(path)["true_logit"] for path in sorted((tmp_path / "rows" / "_truth").glob("*.parquet"))]
    )
    assert abs(auc(labels, logit) - best["auc"]) <= best["auc_bound"] + 1e-6
    assert logloss(labels, 1 / (1 + np.exp(-logit))) == pytest.approx(best["logloss"], abs=1e-5)
    assert labels.mean() == pytest.approx(0.1, abs=0.005)
    assert labels.mean() == pytest.approx(best["click_rate"], abs=1e-6)


def test_generated_rows_look_like_clicks() -> None:
    block = SyntheticClicks(0).block(0)
    missing = {name: block.rows[name].null_count / BLOCK for name in block.rows.schema.names}
    assert missing["i12"] == pytest.approx(0.765, abs=0.01)
    assert missing["c22"] == pytest.approx(0.762, abs=0.01)
    assert missing["label"] == missing["c1"] == 0
    counts = np.sort(np.unique(block.rows["c3"].drop_null().to_numpy(), return_counts=True)[1])[::-1]
    assert counts[0] > 0.03 * BLOCK  # the head of a heavy tail …
    assert (counts == 1).sum() > 0.2 * BLOCK  # … and the tail itself
    assert 0.8 < auc(block.rows["label"].to_numpy(), block.logit) < 0.9


def test_numbers_categories_and_their_pairs_all_matter() -> None:
    """Drawing an input of the truth anew changes the log-odds; the effect of a pair depends on both of its categories."""
    clicks = SyntheticClicks(0)
    numbers, ranks, logit = clicks.draw(np.random.default_rng(1), 20_000)
    order = np.random.default_rng(2).permutation(20_000)
    other_numbers, other_first, other_second, other_both = numbers[order], ranks.copy(), ranks.copy(), ranks.copy()
    other_first[:, 0] = other_both[:, 0] = ranks[order, 0]
    other_second[:, 1] = other_both[:, 1] = ranks[order, 1]
    assert 0.3 < (clicks.logit(other_numbers, ranks) - logit).std() < 3
    assert 0.3 < (clicks.logit(numbers, other_first) - logit).std() < 3
    additive = clicks.logit(numbers, other_first) + clicks.logit(numbers, other_second) - logit
    assert (clicks.logit(numbers, other_both) - additive).std() > 0.3


@pytest.mark.parametrize("form", ["tsv", "tsv.gz", "slot", "orc", "parquet-lists"])
def test_any_format_is_converted_without_loss(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "rows", ROWS, form)
    result = convert_rows(path, tmp_path / "out", parts=3)
    assert (result["rows"], result["files"], result["skipped"]) == (400, 3, 0)
    assert read(tmp_path / "out").equals(table(ROWS))
    assert [pq.read_metadata(part).num_rows for part in sorted((tmp_path / "out").iterdir())] == [134, 134, 132]


def test_a_malformed_row_leaves_no_half_conversion(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes(tsv(ROWS) + b"torn\t1")
    with pytest.raises(DataError, match="rows.tsv: line 401: 2 tab-separated fields"):
        convert_rows(tmp_path / "rows.tsv", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.tsv"]
    assert convert_rows(tmp_path / "rows.tsv", tmp_path / "out", on_error="skip")["skipped"] == 1
    with pytest.raises(DataError, match="never overwritten"):
        convert_rows(tmp_path / "rows.tsv", tmp_path / "out")


def test_lists_are_written_as_repeated_slots(tmp_path: Path) -> None:
    schema = RowSchema((RowColumn("a", "int64", is_list=True), RowColumn("b", "string")))
    batch = pa.RecordBatch.from_pylist(
        [{"a": [5, 5, -7], "b": "x"}, {"a": [], "b": None}, {"a": [2**63 - 1], "b": "y"}], schema.arrow
    )
    assert parse_slot_text(slot_text(batch, schema), schema).equals(batch)
    with (
        pytest.raises(DataError, match="'a': a list does not fit"),
        row_writer(tmp_path / "x.tsv", schema, "tsv") as out,
    ):
        out(batch)
    assert list(tmp_path.iterdir()) == []
    strings = pa.RecordBatch.from_pylist([{"a": [], "b": "x:y"}], schema.arrow)
    with pytest.raises(DataError, match="'b': a text holds"):
        slot_text(strings, schema)


def test_numbers_are_written_with_all_their_digits() -> None:
    values = [0.1, -0.0, 1e-30, 3.4e38, 16777216.0, None]
    schema = criteo_schema().select(["i1"])
    batch = pa.record_batch([pa.array([1.0] * 6, pa.float32()), pa.array(values, pa.float32())], schema.arrow)
    lines = tsv_text(batch, schema).decode().splitlines()
    assert [None if not line[2:] else np.float32(line[2:]) for line in lines] == batch["i1"].to_pylist()
