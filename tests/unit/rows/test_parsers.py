"""The text parsers and the incremental parser: what a text may look like, what is malformed, and that nothing else ever happens."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError
from data_exchange_center.rows import lines as line_rules
from data_exchange_center.rows.columnar import parquet_batches
from data_exchange_center.rows.criteo_tsv import parse_tsv
from data_exchange_center.rows.faults import Faults, MalformedRow
from data_exchange_center.rows.parser import RowParser
from data_exchange_center.rows.schema import RowColumn, RowSchema, criteo_schema
from data_exchange_center.rows.slot_text import parse_slot_text
from tests.unit.rows.written import SCHEMA, Row, list_table, numbered, rows, slot_text, table, tsv

TEXTS = {"tsv": tsv, "slot": slot_text}
PARSERS = {"tsv": parse_tsv, "slot": parse_slot_text}
BOTH = pytest.mark.parametrize("form", ["tsv", "slot"])
GOOD = numbered(9)
LISTS = criteo_schema(lists=True)


def as_table(batches: Iterator[pa.RecordBatch] | list[pa.RecordBatch], schema: RowSchema = SCHEMA) -> pa.Table:
    return pa.Table.from_batches(list(batches), schema.arrow)


def parse_in_pieces(text: bytes, sizes: Iterator[int], **more: Any) -> tuple[list[pa.RecordBatch], RowParser]:
    parser, batches, place = RowParser(SCHEMA, **more), [], 0
    while place < len(text):
        size = next(sizes)
        batches += parser.feed(text[place : place + size])
        place += size
    return [*batches, *parser.finish()], parser


@BOTH
@given(made=rows(15), data=st.data())
@settings(max_examples=40, deadline=None)
def test_rows_that_arrive_in_any_pieces_are_the_rows_that_were_written(
    form: str, made: list[Row], data: st.DataObject
) -> None:
    text = TEXTS[form](made)
    if data.draw(st.booleans()):
        text = text.rstrip(b"\n")
    if data.draw(st.booleans()):
        text = text.replace(b"\n", b"\r\n")
    if data.draw(st.booleans()):
        text = b"\xef\xbb\xbf" + text
    packed = gzip.compress(text[:99]) + gzip.compress(text[99:]) if data.draw(st.booleans()) else text
    sizes = random.Random(data.draw(st.integers(0, 99)))
    largest = data.draw(st.sampled_from([3, 200, 10**6]))
    block = data.draw(st.sampled_from([64, 1000, 1 << 20]))
    batches, parser = parse_in_pieces(packed, iter(lambda: sizes.randint(1, largest), 0), block=block)
    assert as_table(batches).equals(table(made))
    assert parser.rows == len(made)


@BOTH
def test_rows_without_labels_are_told_from_the_first(form: str) -> None:
    batches, parser = parse_in_pieces(TEXTS[form](GOOD, labelled=False), iter([100] * 1000))
    assert parser.text is not None and parser.text.schema == SCHEMA.unlabelled
    assert as_table(batches, SCHEMA.unlabelled).equals(table(GOOD).drop_columns(["label"]))


def test_blank_lines_hold_no_row_but_count_as_lines() -> None:
    text = b"\n\n" + tsv(GOOD[:2]) + b"\r\n\n" + tsv(GOOD[2:3]) + b"1\t2\n"
    faults = Faults()
    assert as_table([parse_tsv(text, SCHEMA, faults=faults)]).equals(table(GOOD[:3]))
    assert [fault.line for fault in faults.first] == [8]


def fields(**changed: str) -> bytes:
    """A row of TSV: 1, then 13 numbers `5`, then 26 categories, with some changed."""
    values = {name: "1" if name == "label" else "5" if name[0] == "i" else "0000000a" for name in SCHEMA.names}
    return "\t".join((values | changed).values()).encode()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"1\t2\t3", "3 tab-separated fields, 40 are expected (label … c26)"),
        (fields() + b"\t", "41 tab-separated fields, 40 are expected (label … c26)"),
        (fields(label="2"), "'label' is '2', not 0 or 1"),
        (fields(label=""), "'label' is missing"),
        (fields(i3="abc"), "'i3' is 'abc', not a finite number"),
        (fields(i3="nan"), "'i3' is 'nan', not a finite number"),
        (fields(i13="-inf"), "'i13' is '-inf', not a finite number"),
        (fields(i1="1e39"), "'i1' is '1e39', not a finite number"),
        (fields(i2="0x10"), "'i2' is '0x10', not a finite number"),
        (fields(i2="1" * 99), f"'i2' is '{'1' * 60}…', not a finite number"),
        (fields(c1="a\0b"), "holds a NUL byte"),
        (fields(c1="a\rb"), "holds a carriage return that ends no line"),
    ],
)
def test_a_malformed_tsv_row_is_named_with_its_line_and_what_is_wrong(line: bytes, problem: str) -> None:
    text = tsv(GOOD[:4]) + line + b"\n" + tsv(GOOD[4:])
    with pytest.raises(MalformedRow) as raised:
        parse_tsv(text, SCHEMA, 101, source="day_0")
    assert raised.value.message == f"day_0: line 105: {problem}"
    assert (raised.value.line, raised.value.problem) == (105, problem)
    faults = Faults()
    assert as_table([parse_tsv(text, SCHEMA, 101, faults=faults)]).equals(table(GOOD))
    assert (faults.count, faults.first[0].problem) == (1, problem)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("foo", "'foo' is not slot:value"),
        ("click:1\t1:5:5", "'1:5:5' is not slot:value"),
        ("click:1\t:5", "':5' is not slot:value"),
        ("click:1\t27:5", "unknown slot '27'"),
        ("click:1\t0:5", "unknown slot '0'"),
        ("click:3", "'label' is '3', not 0 or 1"),
        ("click:", "'label' is missing"),
        ("1:5", "click is missing"),
        ("click:1\tclick:1", "'label' has 2 values, and is declared to hold one"),
        ("click:1\t3:6\t3:7", "'c3' has 2 values, and is declared to hold one"),
        ("click:1\tdense_feature:5", "1 values of dense_feature, 13 are expected, or none"),
        ("click:1" + "\tdense_feature:5" * 14, "14 values of dense_feature, 13 are expected, or none"),
        ("click:1" + "\tdense_feature:5" * 12 + "\tdense_feature:x", "'i13' is 'x', not a finite number"),
        ("click:1\t1:1.5", "'c1' is '1.5', not a 64-bit integer"),
        ("click:1\t26:9223372036854775808", "'c26' is '9223372036854775808', not a 64-bit integer"),
        ("click:1\t1:\0", "holds a NUL byte"),
    ],
)
def test_a_malformed_slot_row_is_named_with_its_line_and_what_is_wrong(line: str, problem: str) -> None:
    text = slot_text(GOOD[:4]) + line.encode() + b"\n" + slot_text(GOOD[4:])
    with pytest.raises(MalformedRow) as raised:
        parse_slot_text(text, SCHEMA, 11, source="part-0")
    assert raised.value.message == f"part-0: line 15: {problem}"
    faults = Faults()
    assert as_table([parse_slot_text(text, SCHEMA, faults=faults)]).equals(table(GOOD))
    assert [fault.problem for fault in faults.first] == [problem]


@BOTH
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_malformed_rows_leave_the_others_as_they_are(form: str, data: st.DataObject) -> None:
    junk = data.draw(st.lists(st.tuples(st.integers(0, 8), st.binary(min_size=1, max_size=30)), max_size=5))
    good = TEXTS[form](GOOD).splitlines(keepends=True)
    junk = [(place, text.replace(b"\n", b"?").replace(b"\t", b"!").strip() or b"?") for place, text in junk]
    parts = [line for place in range(9) for line in (*(text + b"\n" for at, text in junk if at == place), good[place])]
    faults = Faults()
    assert as_table([PARSERS[form](b"".join(parts), SCHEMA, 2, faults=faults)]).equals(table(GOOD))
    assert faults.count == len(junk)


def test_slots_given_several_times_fill_lists_without_loss() -> None:
    text = b"click:1 1:5 3:6 1:7 1:5\n\nclick:0\t26:-9223372036854775808 2: \n"
    batch = parse_slot_text(text, LISTS)
    assert batch["c1"].to_pylist() == [[5, 7, 5], []]
    assert batch["c3"].to_pylist() == [[6], []]
    assert batch["c26"].to_pylist() == [[], [-(2**63)]]
    assert batch["c2"].to_pylist() == [[], []]
    assert batch["i1"].to_pylist() == [None, None]


def test_slots_may_be_named_like_their_columns() -> None:
    schema = RowSchema(
        (RowColumn("label", "float32", label=True), RowColumn("age", "float32"), RowColumn("town", "string"))
    )
    batch = parse_slot_text("label:1 age:5.5 town:Zürich\nclick:0 dense_feature:3 1:Bern\n".encode(), schema)
    assert batch.to_pylist() == [
        {"label": 1.0, "age": 5.5, "town": "Zürich"},
        {"label": 0.0, "age": 3.0, "town": "Bern"},
    ]


def test_fixed_lengths_are_filled_up_and_never_cut() -> None:
    schema = RowSchema(
        (RowColumn("a", "int64", is_list=True, length=3, default=-1), RowColumn("b", "float32", default=0.5))
    )
    faults = Faults()
    batch = parse_slot_text(b"1:7 1:8 b:1\nb:\n1:1 1:2 1:3\n1:1 1:2 1:3 1:4\n", schema, faults=faults)
    assert batch.to_pylist() == [
        {"a": [7, 8, -1], "b": 1.0},
        {"a": [-1, -1, -1], "b": 0.5},
        {"a": [1, 2, 3], "b": 0.5},
    ]
    assert [fault.message for fault in faults.first] == ["line 4: 'a' has 4 values, 3 at most"]
    same = pa.record_batch({"a": [[7, 8], None, [1, 2, 3]], "b": [1.0, None, float("nan")]})
    sink = BytesIO()
    pa.parquet.write_table(pa.table(same), sink)
    assert as_table(parquet_batches(sink, schema), schema).equals(as_table([batch], schema))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch, on_error: str) -> None:
    monkeypatch.setattr(line_rules, "LONGEST", 5000)
    text = tsv(GOOD[:3]) + b"x" * 40_000 + b"\n" + tsv(GOOD[3:]) + b"y" * 20_000
    faults = Faults() if on_error == "skip" else None
    parser = RowParser(SCHEMA, faults=faults, block=1000)
    batches: list[pa.RecordBatch] = []

    def run() -> None:
        for place in range(0, len(text), 700):
            batches.extend(parser.feed(text[place : place + 700]))
        batches.extend(parser.finish())

    if faults is None:
        with pytest.raises(MalformedRow, match="line 4: longer than 5000 bytes"):
            run()
        return
    run()
    assert as_table(batches).equals(table(GOOD))
    assert [fault.line for fault in faults.first] == [4, 11]


def test_a_broken_gzip_stream_is_an_error_that_says_so() -> None:
    packed = gzip.compress(tsv(numbered(400)))
    for broken, message in ((packed[:-20], "breaks off"), (packed[:500] + b"\xff" * 99 + packed[599:], "damaged gzip")):
        with pytest.raises(DataError, match=f"up: .*{message}"):
            parse_in_pieces(broken, iter(lambda: 100, 0), source="up")


@given(st.binary(max_size=300), st.sampled_from(["auto", "tsv", "slot"]))
@example(b"", "auto")
@example(b"\xff\xfe1\x00\t\x00", "auto")
@example(b"PAR1", "auto")
@example(b"\x1f\x8b", "auto")
@example(b"\x1f\x8b\x08" + b"\0" * 40, "auto")
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_rows_or_an_error_of_the_data(noise: bytes, form: str) -> None:
    def run(**more: Any) -> None:
        parse_in_pieces(noise, iter(lambda: 50, 0), format=form, **more)

    for more in ({}, {"faults": Faults()}):
        try:
            run(**more)
        except DataError as error:
            assert error.message


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_in_rows_are_rows_or_an_error_of_the_data(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["tsv", "slot"]))
    text = bytearray(TEXTS[form](GOOD))
    for _ in range(data.draw(st.integers(1, 5))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b"\0\t\n\r:- .0az\xff\xc3"))
    faults = Faults()
    batch = PARSERS[form](bytes(text), SCHEMA, faults=faults)
    assert len(batch) + faults.count <= bytes(text).count(b"\n") + 1
    try:
        assert PARSERS[form](bytes(text), SCHEMA).equals(batch)
    except MalformedRow as error:
        assert (error.line, error.problem) == (faults.first[0].line, faults.first[0].problem)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_parquet_file_gives_rows_or_an_error_of_the_data(data: st.DataObject) -> None:
    sink = BytesIO()
    pa.parquet.write_table(list_table(GOOD), sink, row_group_size=4)
    content = bytearray(sink.getvalue())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        list(parquet_batches(BytesIO(bytes(content)), SCHEMA, source="up"))
    except DataError as error:
        assert error.message.startswith("up: ")
