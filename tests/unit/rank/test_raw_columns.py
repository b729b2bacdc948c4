"""Columns become arrays of the declared type and length."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import Feature
from data_exchange_center.raw_columns import raw_column


def feature(**declared: object) -> Feature:
    return Feature.model_validate({"name": "f", "entity": "item", "type": "numeric", **declared})


def test_nulls_become_the_declared_default() -> None:
    made = raw_column(feature(default=3), "float32", pa.array([1.5, None]))
    assert made.dtype == np.float32 and made.tolist() == [1.5, 3.0]


def test_lists_are_cut_and_padded_at_the_end() -> None:
    declared = feature(type="dense_vector", length=2, default=-1)
    made = raw_column(declared, "float32", pa.chunked_array([[[1.0, 2.0, 3.0]], [[4.0], None, [None, 5.0]]]))
    assert made.tolist() == [[1.0, 2.0], [4.0, -1.0], [-1.0, -1.0], [-1.0, 5.0]]


def test_strings_are_padded_by_the_empty_one() -> None:
    declared = feature(type="sequence", dtype="id", length=2, vocabulary={"policy": "learned"}, embedding=2)
    assert raw_column(declared, "string", pa.array([["a"], []])).tolist() == [["a", ""], ["", ""]]


def test_a_column_of_another_type_is_named() -> None:
    with pytest.raises(DataError, match="the column is string, declared is float32") as error:
        raw_column(feature(), "float32", pa.array(["x"]))
    assert error.value.field == "f"


def test_a_missing_number_of_a_candidate_stays_missing_for_the_graph() -> None:
    made = raw_column(feature(entity="candidate", default=3), "float32", pa.array([1.5, None]))
    assert made[0] == 1.5 and np.isnan(made[1])


def test_the_last_elements_of_a_longer_list_can_be_kept() -> None:
    declared = feature(type="sequence", length=2, keep="last", cross_only=True)
    made = raw_column(declared, "float32", pa.array([[1.0, 2.0, 3.0], [4.0], []]))
    assert made.tolist() == [[2.0, 3.0], [4.0, 0.0], [0.0, 0.0]]


def test_text_becomes_an_id_where_the_feature_says_so() -> None:
    declared = feature(type="categorical", dtype="int64", hash=True, default=-1, vocabulary={}, embedding=2)
    made = raw_column(declared, "int64", pa.array(["68fd1e64", "Müller", None, "Müller"]))
    assert made.tolist() == [0x68FD1E64, made[1], -1, made[1]] and made[1] != made[0]
    assert raw_column(declared, "int64", pa.array([7, None])).tolist() == [7, -1]
