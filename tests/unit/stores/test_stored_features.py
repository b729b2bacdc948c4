"""Stored features: padded, typed, never null; packed and unpacked without loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_exchange_center.errors import StoreError
from data_exchange_center.feature_spec import Feature
from online.stores.item_shards import SHARD_ROWS, pack, shard_count, unpack
from online.stores.stored_features import (
    Layout,
    StoredFeature,
    from_text,
    id_types,
    numpy_column,
    stored_column,
    stored_features,
    to_text,
)

ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32, allow_nan=False),
    "string": st.text(max_size=8),
}
DEFAULTS: dict[str, Any] = {"int64": -7, "float32": 0.5, "string": "none"}


@given(st.data(), st.sampled_from(sorted(ELEMENTS)), st.integers(0, 5))
def test_a_column_is_padded_cut_and_filled_like_this(data: st.DataObject, dtype: str, length: int) -> None:
    feature = StoredFeature("f", dtype, length, DEFAULTS[dtype])
    element = st.none() | ELEMENTS[dtype]
    value = st.none() | st.lists(element, max_size=8) if length else element
    values = data.draw(st.lists(value, max_size=6))
    stored = stored_column(feature, pa.chunked_array([pa.array(values, feature.arrow_type)]))

    def filled(entry: Any) -> Any:
        return feature.default if entry is None else entry

    expected = [
        ([filled(entry) for entry in row or []] + [feature.default] * length)[:length] if length else filled(row)
        for row in values
    ]
    assert stored.null_count == 0
    assert stored.to_pylist() == expected
    array = numpy_column(feature, stored)
    assert array.shape == ((len(values), length) if length else (len(values),))
    assert array.dtype == feature.numpy_dtype
    assert array.tolist() == expected


def test_a_sliced_list_column_keeps_its_own_rows() -> None:
    column = pa.array([[1], [2, 3], [], [4, 5, 6]], pa.list_(pa.int64())).slice(1, 3)
    assert stored_column(StoredFeature("f", "int64", 2, 0), pa.chunked_array([column])).to_pylist() == [
        [2, 3],
        [0, 0],
        [4, 5],
    ]


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (StoredFeature("age", "float32", 0, 0.0), pa.array(["old"])),
        (StoredFeature("age", "float32", 0, 0.0), pa.array([[1.0]])),
        (StoredFeature("age", "float32", 2, 0.0), pa.array([1.0])),
    ],
)
def test_a_column_of_another_type_is_named(feature: StoredFeature, column: pa.Array) -> None:
    with pytest.raises(StoreError, match="'age'"):
        stored_column(feature, pa.chunked_array([column]))


def test_ids_take_the_type_of_their_column_and_defaults_that_of_the_feature() -> None:
    described: list[dict[str, Any]] = [
        {"name": "last_item", "type": "categorical", "dtype": "id", "vocabulary": {}, "embedding": 4},
        {"name": "items", "type": "sequence", "dtype": "id", "length": 3, "vocabulary": {}, "embedding": 4},
        {"name": "age", "type": "numeric", "default": 30},
    ]
    features = [Feature(entity="user", **entry) for entry in described]
    table = pa.table({"last_item": ["a"], "items": [["a"]], "age": pa.array([1.0], pa.float32())})
    stored = stored_features(features, id_types(features, table))
    assert [(one.dtype, one.length, one.default) for one in stored] == [
        ("string", 0, ""),
        ("string", 3, ""),
        ("float32", 0, 30.0),
    ]
    assert isinstance(stored[2].default, float)
    assert from_text(to_text(stored)) == stored


FEATURES = [StoredFeature("year", "int64", 0, 0), StoredFeature("genres", "string", 2, "")]


def packed(items: int, loaded: int = 5) -> list[bytes]:
    columns = {
        "year": pa.array(range(items), pa.int64()),
        "genres": pa.array([[f"g{row}", ""] for row in range(items)], pa.list_(pa.string())),
    }
    return pack(FEATURES, pa.array(range(100, 100 + items)), pa.array([9] * items, pa.int64()), columns, loaded)


@pytest.mark.parametrize("items", [0, 1, SHARD_ROWS, SHARD_ROWS + 1, 3 * SHARD_ROWS])
def test_a_packed_catalog_is_unpacked_as_it_was(items: int) -> None:
    shards = packed(items)
    assert shard_count(shards[0]) == len(shards) == max(1, -(-items // SHARD_ROWS))
    snapshot = unpack(FEATURES, shards)
    found = snapshot.gather([*range(100, 100 + items), 7])
    assert found.columns["year"].tolist() == [*range(items), 0]
    assert found.columns["genres"].tolist() == [*([f"g{row}", ""] for row in range(items)), ["", ""]]
    assert found.timestamps.tolist() == [9] * items + [0]


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        (packed(600)[:2], "512 items in the shards, 600 promised"),
        ([packed(600)[0], *packed(600, loaded=6)[1:]], "two loads"),
        ([packed(600)[0], b"rubbish", packed(600)[2]], "not readable"),
        ([packed(600)[0], packed(600)[0], packed(600)[2]], "600 promised"),
    ],
)
def test_a_snapshot_that_is_not_whole_is_refused(shards: list[bytes], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        unpack(FEATURES, shards)


def test_a_snapshot_without_a_declared_feature_is_refused() -> None:
    with pytest.raises(StoreError, match="'colour'"):
        unpack([*FEATURES, StoredFeature("colour", "string", 0, "")], packed(3))


def test_features_of_one_dtype_lie_side_by_side_and_columns_are_views_of_them() -> None:
    layout = Layout(FEATURES)
    columns = {feature.name: feature.defaults(3) for feature in FEATURES}
    rows = layout.rows(layout.matrices(columns), np.ones(3, np.int64))
    for dtype, (names, matrix) in rows.matrices.items():
        assert names == tuple(feature.name for feature in FEATURES if feature.dtype == dtype)
        assert matrix.shape == (3, layout.widths[dtype]) and matrix.flags.c_contiguous
    for feature in FEATURES:
        assert np.array_equal(rows.columns[feature.name], columns[feature.name])
        assert np.shares_memory(rows.columns[feature.name], rows.matrices[feature.dtype][1])
