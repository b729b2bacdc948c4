"""A user's packed row: what goes in comes out, and what is no row is named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import StoreError
from online.stores.stored_features import Layout, StoredFeature
from online.stores.user_rows import pack_rows, unpack_row

FEATURES = (
    StoredFeature("gender", "string", 0, ""),
    StoredFeature("events", "float32", 0, 0.0),
    StoredFeature("history", "int64", 3, 0),
    StoredFeature("seen", "int64", 0, 0),
    StoredFeature("words", "string", 2, ""),
    StoredFeature("taste", "float32", 2, 0.0),
)
ROWS = st.tuples(
    st.text(),
    st.floats(width=32, allow_nan=False),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.text(), min_size=2, max_size=2),
    st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2),
)


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_a_row_comes_back_as_it_went_in(rows: list[tuple[object, ...]]) -> None:
    values = list(zip(*rows, strict=True))
    columns = {f.name: pa.array(column, f.arrow_type) for f, column in zip(FEATURES, values, strict=True)}
    moments = pa.array(range(100, 100 + len(rows)), pa.int64())
    for place, packed in enumerate(pack_rows(FEATURES, moments, columns)):
        row = unpack_row(Layout(FEATURES), packed)
        assert row.timestamps.tolist() == [100 + place]
        for feature, expected in zip(FEATURES, rows[place], strict=True):
            made = row.columns[feature.name]
            assert made.dtype == feature.numpy_dtype and made.tolist() == [expected]
            assert made.shape == ((1, feature.length) if feature.length else (1,))


@pytest.mark.parametrize("broken", [b"", b"\x00" * 8, b"\x00" * 60, b"\x00" * 52 + b'["one"]'])
def test_what_is_no_row_is_named(broken: bytes) -> None:
    with pytest.raises(StoreError, match="load them again"):
        unpack_row(Layout(FEATURES), broken)


def test_numbers_are_little_endian() -> None:
    columns = {"seen": pa.array([2], pa.int64())}
    (packed,) = pack_rows((FEATURES[3],), pa.array([1], pa.int64()), columns)
    assert packed == np.array([1, 2], "<i8").tobytes() + b"[]"
