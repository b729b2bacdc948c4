"""Types, lists and categories: what becomes what, and what is refused."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.rows.categories import category_ids, fnv1a
from data_exchange_center.rows.columnar import parquet_batches
from data_exchange_center.rows.faults import Faults
from data_exchange_center.rows.schema import RowColumn, RowSchema, criteo_schema, schema_of

ONE = RowSchema((RowColumn("x", "float32"),))


def read(values: Any, column: RowColumn, faults: Faults | None = None) -> list[Any]:
    """What a Parquet file's column becomes."""
    sink = BytesIO()
    pq.write_table(pa.table({column.name: values}), sink)
    batches = parquet_batches(sink, RowSchema((column,)), source="file", faults=faults)
    return [value for batch in batches for value in batch[column.name].to_pylist()]


def spelled(text: bytes) -> int:
    """The id of a category by the rule, in plain Python."""
    if 0 < len(text) <= 16 and all(letter in b"0123456789abcdefABCDEF" for letter in text):
        value = int(text, 16)
    else:
        value = 0xCBF29CE484222325
        for byte in text:
            value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value - 2**64 if value >= 2**63 else value


HEX = st.text("0123456789abcdefABCDEF", min_size=1, max_size=17).map(str.encode)
EIGHT = st.text("0123456789abcdefABCDEF", min_size=8, max_size=8).map(str.encode)


@given(st.lists(st.none() | EIGHT) | st.lists(st.none() | HEX | st.binary(max_size=20)), st.integers(0, 3))
def test_categories_are_their_hexadecimal_value_or_their_hash(texts: list[bytes | None], offset: int) -> None:
    array = pa.array(texts, pa.binary()).slice(offset)
    assert category_ids(array).to_pylist() == [spelled(text) if text else None for text in texts[offset:]]


def test_the_hash_is_fnv_1a() -> None:
    # test vectors of the authors, http://www.isthe.com/chongo/src/fnv/test_fnv.c
    assert [hex(value) for value in fnv1a([b"", b"a", b"foobar"])] == [
        "0xcbf29ce484222325", "0xaf63dc4c8601ec8c", "0x85944171f73967e8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None, -3], pa.int8()), [1.0, None, -3.0]),
        (pa.array([1.5, float("nan"), None]), [1.5, None, None]),
        (pa.array([True, None, False]), [1.0, None, 0.0]),
        (pa.array([[1.0], [], None, [None]]), [1.0, None, None, None]),
        (pa.array([[2], [3]], pa.large_list(pa.int64())), [2.0, 3.0]),
        (pa.array([[2.0], None], pa.list_(pa.float64(), 1)), [2.0, None]),
        (pa.array(["1.50", None]).cast(pa.decimal128(5, 2)), [1.5, None]),
        (pa.nulls(2), [None, None]),
        (pa.array([7, 7]).dictionary_encode(), [7.0, 7.0]),
    ],
)
def test_numbers_come_in_many_types(values: pa.Array, expected: list[float | None]) -> None:
    assert read(values, RowColumn("x", "float32")) == expected
    lists = [[] if value is None else [value] for value in expected]
    got = read(values, RowColumn("x", "float32", is_list=True))
    assert [[one for one in row if one is not None] for row in got] == lists


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([2**62 + 1, None, -5]), [2**62 + 1, None, -5]),
        (pa.array([3.0, float("nan"), None]), [3, None, None]),
        (pa.array(["0000000a", "", None, "not hex"]), [10, None, None, spelled(b"not hex")]),
        (pa.array(["ff", "ff", None]).dictionary_encode(), [255, 255, None]),
        (pa.array([b"1f"], pa.large_binary()), [31]),
        (pa.array([5], pa.uint64()), [5]),
    ],
)
def test_ids_come_in_many_types(values: pa.Array, expected: list[int | None]) -> None:
    assert read(values, RowColumn("x", "int64")) == expected


@pytest.mark.parametrize(
    ("values", "column", "problem"),
    [
        (pa.array([1.0, float("inf")]), RowColumn("x", "float32"), "'x' is inf, not a finite number"),
        (pa.array([1.0, 1e300]), RowColumn("x", "float32"), "'x' is 1e+300, not a finite number"),
        (pa.array([1.0, 1.5]), RowColumn("x", "int64"), "'x' is 1.5, not a 64-bit integer"),
        (pa.array([1, 2**63], pa.uint64()), RowColumn("x", "int64"), f"'x' is {2**63}, not a 64-bit integer"),
        (pa.array([[1], [1, 2]]), RowColumn("x", "int64"), "'x' has 2 values, and is declared to hold one"),
        (pa.array([b"a", b"\xff"]), RowColumn("x", "string"), "'x' is '\\\\xff', not UTF-8 text"),
    ],
)
def test_values_that_do_not_fit_are_named(values: pa.Array, column: RowColumn, problem: str) -> None:
    with pytest.raises(DataError) as raised:
        read(values, column)
    assert raised.value.message == f"file: row 1: {problem}"
    faults = Faults()
    assert len(read(values, column, faults)) == faults.count == 1


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (pa.table({"y": [1.0]}), "column 'x' is missing .has y."),
        (pa.table({"xx": [1.0]}), "did you mean 'xx'"),
        (pa.table([[1.0], [2.0]], names=["x", "x"]), "stands there more than once"),
        (pa.table({"x": ["a"]}), "column 'x' is string, declared is float"),
        (pa.table({"x": [{"a": 1}]}), "column 'x' is struct"),
    ],
)
def test_columns_that_are_not_there_or_of_another_type_are_named(table: pa.Table, problem: str) -> None:
    sink = BytesIO()
    pq.write_table(table, sink)
    with pytest.raises(DataError, match=f"up: .*{problem}"):
        list(parquet_batches(sink, ONE, source="up"))


def test_batches_of_a_sliced_column_keep_their_values() -> None:
    column = pa.array([[k] if k % 3 else [] for k in range(50)]).slice(11, 20)
    assert read(column, RowColumn("x", "int64")) == [k if k % 3 else None for k in range(11, 31)]


def test_the_schema_of_a_spec_has_its_inputs_and_the_label() -> None:
    schema = schema_of(load_spec("movielens"))
    assert schema.names[0] == "label" and schema.label is not None
    assert schema.names[1:] == [feature.name for feature in load_spec("movielens").inputs]
    assert schema["history_items"].is_list


@pytest.mark.parametrize(
    "columns",
    [
        (RowColumn("a", "int64"), RowColumn("a", "int64")),
        (RowColumn("a", "int64"), RowColumn("label", "float32", label=True)),
        (RowColumn("label", "float32", label=True),),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(columns: tuple[RowColumn, ...]) -> None:
    with pytest.raises(SpecError):
        RowSchema(columns)


@pytest.mark.parametrize(
    "declared",
    [
        {"kind": "int64", "label": True},
        {"kind": "int64", "length": 3},
        {"kind": "int64", "is_list": True, "length": 3},
        {"kind": "int64", "default": 1.5},
        {"kind": "float32", "default": "x"},
        {"kind": "string", "default": 1},
        {"kind": "int64", "is_list": True, "default": 1},
        {"kind": "float32", "default": float("nan")},
    ],
)
def test_a_column_that_contradicts_itself_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        RowColumn("a", **declared)


def test_a_selection_keeps_the_order_and_the_label() -> None:
    assert criteo_schema().select(["c2", "i1"]).names == ["label", "i1", "c2"]
    with pytest.raises(SpecError, match="no column 'c27'"):
        criteo_schema().select(["c27"])
    assert np.dtype(np.float32) == criteo_schema().arrow.field("label").type.to_pandas_dtype()
