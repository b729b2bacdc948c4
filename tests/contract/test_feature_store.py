"""What every feature store promises (online/stores/ports.py), against the release's own tables."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from data_exchange_center.errors import StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.workspace import write_table
from online.stores.ports import FeatureRows, FeatureStore
from tests.factories import HISTORY, ITEM_TERMS, SNAPSHOT, TERMS

T = 5.0  # seconds
USER_COLUMNS = ("gender", "age", "user_last_timestamp", "history_items", "genre_rates")
ITEM_COLUMNS = ("genres", "year", "item_events")


@pytest.fixture(scope="session")
def loaded(features: FeatureStore, releases: list[Release]) -> list[Release]:
    for release in releases:
        rows = features.load(release)
        assert {40, 90} <= set(rows.values())
    return releases


def expected(value: Any, length: int, missing: Any) -> Any:
    return (list(value) + [missing] * length)[:length] if isinstance(value, list) else value


def same(rows: FeatureRows, name: str, values: list[Any]) -> bool:
    """Every row of a feature equals these values; lists are padded with what stands for a missing element."""
    column = rows.columns[name]
    missing = "" if column.dtype == object else 0
    length = column.shape[1] if column.ndim == 2 else 0
    return column.tolist() == [np.asarray(expected(value, length, missing), column.dtype).tolist() for value in values]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_users_features_are_those_of_the_release(
    features: FeatureStore, loaded: list[Release], which: int
) -> None:
    table = loaded[which].table("user_features")
    for row in table.to_pylist():
        found = features.user(loaded[which].id, row["user_id"], T)
        assert sorted(found.columns) == sorted(USER_COLUMNS)
        assert found.timestamps.tolist() == [SNAPSHOT]
        assert found.present.tolist() == [True]
        for name in USER_COLUMNS:
            assert same(found, name, [row[name]]), (row["user_id"], name)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_items_features_are_those_of_the_release(
    features: FeatureStore, loaded: list[Release], which: int
) -> None:
    table = loaded[which].table("item_features")
    found = features.items(loaded[which].id, table["item_id"].to_pylist())
    assert sorted(found.columns) == sorted(ITEM_COLUMNS)
    assert (found.timestamps == SNAPSHOT).all()
    for name in ITEM_COLUMNS:
        assert same(found, name, table[name].to_pylist()), name


def test_columns_have_the_dtypes_and_lengths_of_the_spec(features: FeatureStore, loaded: list[Release]) -> None:
    of_string: dict[str, Any] = {release.id: object if release is loaded[2] else np.int64 for release in loaded}
    for release in loaded:
        user_id, item_id = (release.table(name)[f"{name[:-1]}_id"][0].as_py() for name in ("users", "items"))
        user = features.user(release.id, user_id, T).columns
        item = features.items(release.id, [item_id] * 2).columns
        forms = {name: (column.dtype, column.shape) for name, column in {**user, **item}.items()}
        assert forms == {
            "gender": (object, (1,)),
            "age": (np.float32, (1,)),
            "user_last_timestamp": (np.int64, (1,)),
            "history_items": (of_string[release.id], (1, HISTORY)),
            "genre_rates": (np.float32, (1, len(TERMS))),
            "genres": (object, (2, ITEM_TERMS)),
            "year": (np.int64, (2,)),
            "item_events": (np.float32, (2,)),
        }


def test_items_come_in_the_order_asked_repeated_ones_too(features: FeatureStore, loaded: list[Release]) -> None:
    for release in loaded:
        table = release.table("item_features")
        years = dict(zip(table["item_id"].to_pylist(), table["year"].to_pylist(), strict=True))
        asked = [*list(years)[::-1], *list(years)[:3]]
        found = features.items(release.id, asked)
        assert found.columns["year"].tolist() == [years[item] for item in asked]
        kind = object if isinstance(asked[0], str) else np.int64
        as_array = features.items(release.id, np.array(asked, kind))
        assert as_array.columns["year"].tolist() == found.columns["year"].tolist()


def test_who_is_unknown_gets_the_defaults_and_no_timestamp(features: FeatureStore, loaded: list[Release]) -> None:
    strangers = [(loaded[0], 10**12), (loaded[0], "Zoë"), (loaded[2], "nobody"), (loaded[2], 1)]
    for release, stranger in strangers:
        found = features.user(release.id, stranger, T)
        assert found.timestamps.tolist() == [0]
        assert found.present.tolist() == [False]
        assert found.columns["gender"].tolist() == ["unknown"]
        assert found.columns["age"].tolist() == [30.0]
        assert found.columns["genre_rates"].tolist() == [[0.0] * len(TERMS)]
        assert found.columns["history_items"].tolist() == [["" if release is loaded[2] else 0] * HISTORY]


def test_unknown_items_are_marked_among_known_ones(features: FeatureStore, loaded: list[Release]) -> None:
    table = loaded[0].table("item_features")
    known, year = table["item_id"][4].as_py(), table["year"][4].as_py()
    found = features.items(loaded[0].id, [10**12, known, "a string"])
    assert found.present.tolist() == [False, True, False]
    assert found.columns["year"].tolist() == [0, year, 0]
    assert found.columns["genres"].tolist()[0] == [""] * ITEM_TERMS


def test_no_items_is_no_error(features: FeatureStore, loaded: list[Release]) -> None:
    assert len(features.items(loaded[0].id, []).timestamps) == 0


def test_releases_with_the_same_ids_keep_their_own_values(features: FeatureStore, loaded: list[Release]) -> None:
    ages = []
    for release in loaded[:2]:
        shared = sorted(
            set(loaded[0].table("users")["user_id"].to_pylist()) & set(loaded[1].table("users")["user_id"].to_pylist())
        )
        ages.append([features.user(release.id, user, T).columns["age"][0] for user in shared])
    assert ages[0] != ages[1]


def test_loading_again_replaces_what_is_there(features: FeatureStore, loaded: list[Release], tmp_path: Path) -> None:
    """A load must win over an earlier one of the same release, whatever the store thinks of equal timestamps."""
    copy = Release(tmp_path / loaded[0].id, loaded[0].manifest)
    shutil.copytree(loaded[0].path, copy.path)
    table = copy.table("user_features")
    older = pc.add(table["age"], np.float32(1)).cast("float32")
    write_table(
        copy.path / "tables/user_features.parquet", table.set_column(table.column_names.index("age"), "age", older)
    )
    user, age = table["user_id"][0].as_py(), table["age"][0].as_py()
    features.load(copy)
    assert features.user(copy.id, user, T).columns["age"].tolist() == [age + 1]
    features.load(loaded[0])
    assert features.user(copy.id, user, T).columns["age"].tolist() == [age]


def test_fingerprint_is_that_of_the_releases_spec(features: FeatureStore, loaded: list[Release]) -> None:
    for release in loaded:
        assert features.fingerprint(release.id) == release.manifest["feature_spec_sha256"]


def test_promoting_keeps_every_release_readable(features: FeatureStore, loaded: list[Release]) -> None:
    for release in (loaded[0], loaded[1], loaded[0]):
        features.promote(release)
    for release in loaded[:2]:
        user = release.table("users")["user_id"][0].as_py()
        assert features.user(release.id, user, T).present.all()


def test_a_dropped_release_is_gone_and_the_others_are_not(features: FeatureStore, loaded: list[Release]) -> None:
    gone, stays = loaded[1], loaded[0]
    features.drop(gone.id)
    features.drop("never-there")
    assert features.releases() == sorted(release.id for release in loaded if release is not gone)
    user = gone.table("users")["user_id"][0].as_py()
    with pytest.raises(StoreUnavailable):
        features.user(gone.id, user, T)
    with pytest.raises(StoreUnavailable):
        features.items(gone.id, [1])
    assert features.user(stays.id, stays.table("users")["user_id"][0].as_py(), T).present.all()
    features.load(gone)
    assert features.user(gone.id, user, T).present.all()


def test_threads_get_each_their_own_user(features: FeatureStore, loaded: list[Release]) -> None:
    table = loaded[0].table("user_features")
    ages = dict(zip(table["user_id"].to_pylist(), table["age"].to_pylist(), strict=True))

    def right(user: int) -> bool:
        return features.user(loaded[0].id, user, T).columns["age"].tolist() == [ages[user]]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, list(ages) * 5))


def test_no_time_left_is_unavailable(features: FeatureStore, loaded: list[Release]) -> None:
    with pytest.raises(StoreUnavailable):
        features.user(loaded[0].id, 1, 0.0)
    features.ping(T)
