"""The door to the tables: what is written, when it is made again, and what happens when a dataset cannot be had."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_exchange_center.dataset_info import info_path, read_dataset_info
from data_exchange_center.errors import DataError, DataUnavailable, SettingsError
from data_exchange_center.settings import Settings
from data_exchange_center.tables import INTERACTIONS, ITEMS, USERS
from data_exchange_center.workspace import Workspace, read_table
from offline.datasets.registry import load_dataset
from offline.datasets.s0_fetch_data import clean_data, fetch_data
from offline.datasets.s0_fetch_data import main as fetch_main
from offline.datasets.synthetic import generate, read_truth
from tests.unit.datasets.movielens_files import replace_line, write_1m, write_csv, zipped


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A small generated dataset in a store of its own."""
    return Settings().with_values(
        **{
            "data.dataset": "synthetic",
            "data.store": str(tmp_path / "store"),
            "data.synthetic_users": 40,
            "data.synthetic_items": 50,
            "data.synthetic_events": 900,
        }
    )


def local(settings: Settings, source: Path) -> Settings:
    return settings.with_values(**{"data.dataset": "ml-latest-small", "data.source": str(source)})


def test_the_tables_and_their_description_are_written(settings: Settings) -> None:
    info = load_dataset(settings)
    workspace = Workspace(settings)
    for table, rows in ((USERS, 40), (ITEMS, 50), (INTERACTIONS, 900)):
        read = table.validate(read_table(workspace.tables / f"{table.name}.parquet"))
        assert read.num_rows == rows
    assert info == read_dataset_info(workspace)
    assert (info.users, info.items, info.interactions, info.rows_read, info.dropped) == (40, 50, 900, 900, 0)
    assert (info.labels, info.user_id_type, info.item_id_type) == ("ratings", "int64", "int64")
    assert info.user_attributes == ("gender", "age", "occupation", "zip_code")
    assert info.has_user_attributes
    assert info.has_terms
    assert info.first_timestamp < info.last_timestamp
    assert read_truth(workspace).user_factors.shape == (40, 8)


def test_csv_sets_have_no_user_attributes(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(generate(20, 60, 400, 0), tmp_path / "set")
    info = load_dataset(local(settings, source))
    assert not info.has_user_attributes
    assert info.has_terms
    assert info.source == str(source)


def test_tables_are_made_again_only_when_something_that_shapes_them_changed(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(generate(20, 60, 400, 0), tmp_path / "set")
    chosen = local(settings, source)
    written = Workspace(chosen).tables / "interactions.parquet"
    load_dataset(chosen)

    def again(settings: Settings) -> bool:
        before = written.stat().st_ino
        load_dataset(settings)
        return written.stat().st_ino != before

    assert not again(chosen)
    assert not again(chosen.with_values(seed=7))
    assert again(chosen.with_values(**{"data.positive_above": 2.0}))
    assert again(chosen)
    replace_line(source / "ratings.csv", 2, "1,2,0.5,874724710", "utf-8")
    assert again(chosen)
    (Workspace(chosen).tables / "users.parquet").unlink()
    assert again(chosen)
    info_path(Workspace(chosen)).write_text("{", encoding="utf-8")
    assert again(chosen)
    assert not again(chosen)


def test_an_archive_and_its_folder_give_the_same_tables(settings: Settings, tmp_path: Path) -> None:
    folder = write_csv(generate(20, 60, 400, 0), tmp_path / "set")
    archive = zipped(folder, tmp_path / "ml-latest-small.zip", "ml-latest-small")
    tables = []
    for source in (folder, archive):
        load_dataset(local(settings, source))
        tables.append(read_table(Workspace(local(settings, source)).tables / "interactions.parquet"))
    assert tables[0].equals(tables[1])


def test_broken_raw_data_leaves_the_old_tables_alone(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(generate(20, 60, 400, 0), tmp_path / "set")
    before = load_dataset(local(settings, source))
    replace_line(source / "ratings.csv", 2, "1,2,five,874724710", "utf-8")
    with pytest.raises(DataError, match="ratings.csv:2"):
        load_dataset(local(settings, source))
    assert read_dataset_info(Workspace(local(settings, source))) == before


def test_an_unknown_dataset_is_refused_with_the_nearest_name(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="unknown dataset 'ml-10k'; did you mean ml-100k"):
        load_dataset(settings.with_values(**{"data.dataset": "ml-10k"}))


def test_a_dataset_that_cannot_be_reached_says_what_to_do(settings: Settings) -> None:
    nowhere = settings.with_values(**{"data.dataset": "ml-1m", "data.mirror": "http://127.0.0.1:9/movielens"})
    with pytest.raises(DataUnavailable, match=r"could not reach http://127.0.0.1:9/movielens/ml-1m.zip .*DATA="):
        load_dataset(nowhere)


def test_what_was_fetched_before_needs_no_network(settings: Settings, tmp_path: Path) -> None:
    away = settings.with_values(**{"data.dataset": "ml-1m", "data.mirror": "http://127.0.0.1:9"})
    made = generate(20, 60, 400, 0)
    place = made.users.column_names.index("occupation")
    users = made.users.set_column(place, "occupation", [["writer"] * 20])
    made = type(made)(users, made.items, made.interactions, made.labels, made.rows_read)
    Workspace(away).raw.mkdir(parents=True)
    zipped(write_1m(made, tmp_path / "set"), Workspace(away).raw / "ml-1m.zip", "ml-1m")
    assert load_dataset(away).interactions == 400


def test_cleaning_removes_what_was_made_of_this_dataset_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(generate(20, 60, 400, 0), tmp_path / "set")
    load_dataset(settings)
    load_dataset(local(settings, source))
    assert clean_data(settings)["removed"] == [str(Workspace(settings).offline)]
    assert not Workspace(settings).offline.exists()
    assert info_path(Workspace(local(settings, source))).exists()
    assert source.exists()
    assert clean_data(settings)["removed"] == []


def test_one_strange_row_is_in_the_summary(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(generate(20, 60, 400, 0), tmp_path / "set")
    replace_line(source / "ratings.csv", 3, "1,2,77,874724710", "utf-8")
    summary = fetch_data(local(settings, source))
    assert (summary["rows_read"], summary["interactions"], summary["dropped"]) == (400, 399, 1)
    assert "ratings.csv:3: user_id 1, item_id 2, rating 77.0" in summary["findings"][0]


def test_the_program_ends_with_one_json_object(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dataset", "synthetic", "--store", settings.data.store, "--quiet"]
    with pytest.raises(SystemExit) as ended:
        fetch_main(arguments)
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["interactions"] == 90_000
    with pytest.raises(SystemExit) as ended:
        fetch_main([*arguments, "--dataset", "ml-7m"])
    assert ended.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "invalid_settings"


def test_the_generated_data_does_not_depend_on_the_seed_of_the_fits(settings: Settings) -> None:
    """Several seeds are evaluated on the same data."""
    prints = [load_dataset(settings.with_values(seed=seed)).fingerprint for seed in (0, 1)]
    assert prints[0] == prints[1]
    other = load_dataset(settings.with_values(**{"data.synthetic_seed": 1}))
    assert other.fingerprint != prints[0]
    assert not np.isnan(other.positive_rate)
