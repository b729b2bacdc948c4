"""Packed counters keep apart whatever is added to them, up to the largest sum that they were laid out for."""

from __future__ import annotations

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.preprocess.counters import WORD_BITS, layout_of
from offline.preprocess.engine import connect


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, WORD_BITS), min_size=1, max_size=12), st.data())
def test_counters_read_back_their_own_sums(widths: list[int], data: st.DataObject) -> None:
    layout = layout_of([(f"c{place}", bits) for place, bits in enumerate(widths)])
    rows = data.draw(st.integers(1, 4))
    largest = [max(((1 << bits) - 1) // rows, 0) for bits in widths]
    values = {
        f"c{place}": data.draw(st.lists(st.integers(0, most), min_size=rows, max_size=rows))
        for place, most in enumerate(largest)
    }
    table = ibis.memtable(pa.table({name: pa.array(column, pa.int64()) for name, column in values.items()}))
    columns = {name: table[name] for name in values}
    packed = table.select(**{f"word{w}": layout.pack(w, columns) for w in range(layout.words)})
    summed = packed.aggregate(**{name: packed[name].sum() for name in packed.columns})
    words = {w: summed[f"word{w}"] for w in range(layout.words)}
    read = connect("duckdb").to_pyarrow(summed.select(**{name: layout.read(words, name) for name in values}))
    assert read.to_pylist() == [{name: sum(column) for name, column in values.items()}]


def test_counters_fill_the_first_word_with_room_and_never_straddle_two() -> None:
    layout = layout_of([("a", 40), ("b", 23), ("c", 1), ("d", 62), ("e", 21)])
    assert [layout.places[name][0] for name in "abcde"] == [0, 0, 1, 1, 2]
    assert layout.words == 3
    assert [layout_of([("a", 40), ("b", 30), ("c", 23)]).places[name][0] for name in "abc"] == [0, 1, 0]


def test_a_counter_wider_than_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 64 bits"):
        layout_of([("a", 64)])
