"""Rows of a log become rows that the graph takes: ids for tokens, vectors for texts, all else as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.ready_rows import grown_vocabularies, known_ids, raw_columns_of, ready_rows
from data_exchange_center.vocabulary import FIRST, UNKNOWN

SPEC = FeatureSpec.model_validate(
    {
        "scene": "small",
        "features": [
            {
                "name": "brand",
                "entity": "candidate",
                "type": "categorical",
                "dtype": "int64",
                "vocabulary": {"policy": "growing", "capacity": 3, "token": "string"},
                "embedding": 2,
            },
            {"name": "price", "entity": "candidate", "type": "numeric"},
            {"name": "words", "entity": "candidate", "type": "dense_vector", "length": 2, "text": "said"},
        ],
    }
)


def rows(brands: Sequence[str | None], said: Sequence[str | None]) -> pa.Table:
    return pa.table(
        {
            "label": pa.array([1.0] * len(brands), pa.float32()),
            "brand": pa.array(brands, pa.string()),
            "price": pa.array(range(len(brands)), pa.float32()),
            "said": pa.array(said, pa.string()),
        }
    )


def lengths(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), 0] for text in texts], np.float32)


def test_tokens_become_ids_and_texts_vectors() -> None:
    table = rows(["宝马", " BMW ", None, "new", "宝马"], ["ab", None, "", "abc", "a"])
    vocabularies = grown_vocabularies(SPEC, rows(["宝马", "BMW", "宝马"], ["", "", ""]))
    made = ready_rows(SPEC, table, known_ids(vocabularies), lengths)
    assert made.column_names == ["label", "brand", "price", "words"]
    assert made["brand"].to_pylist() == [FIRST, FIRST + 1, UNKNOWN, UNKNOWN, FIRST]
    assert made["words"].to_pylist() == [[2, 0], [0, 0], [0, 0], [3, 0], [1, 0]]
    assert made["price"] == table["price"] and made["label"] == table["label"]


def test_vocabularies_grow_and_never_renumber() -> None:
    first = grown_vocabularies(SPEC, rows(["b", "b", "a"], ["", "", ""]))
    second = grown_vocabularies(SPEC, rows(["c", "d", "a"], ["", "", ""]), first)
    assert first["brand"].tokens == ("b", "a")
    assert second["brand"].tokens == ("b", "a", "c")  # its capacity is 3


def test_one_name_typed_in_two_ways_is_one_token() -> None:
    made = grown_vocabularies(SPEC, rows(["Škoda", "S\u030ckoda ", "bad\x00name"], ["", "", ""]))
    assert made["brand"].tokens == ("Škoda",)


def test_columns_of_a_log_are_named_with_their_types() -> None:
    assert raw_columns_of(SPEC) == {"brand": pa.string(), "price": pa.float32(), "said": pa.string()}
    assert list(raw_columns_of(load_spec("repair_shop"))) == [
        "car_brand",
        "shop_id",
        "city_id",
        "distance_km",
        "price_score",
        "rating",
        "text_raw",
    ]


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(DataError, match="no column 'brand'"):
        ready_rows(SPEC, rows(["a"], [""]).drop_columns("brand"), known_ids({}), lengths)
    with pytest.raises(DataError, match="the text encoder makes 5"):
        ready_rows(
            SPEC,
            rows(["a"], [""]),
            known_ids(grown_vocabularies(SPEC, rows(["a"], [""]))),
            lambda texts: np.zeros((len(texts), 5), np.float32),
        )
