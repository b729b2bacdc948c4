"""Slot text: `click:0 dense_feature:0.0 … 1:737395 2:… … 26:306163`, a row a line, tokens parted by tabs (or spaces).

The format of PaddleRec's Criteo rows (https://github.com/PaddlePaddle/PaddleRec, datasets/criteo). Which column a token fills:

- `click` the label; rows to be scored have none;
- `dense_feature` the float32 scalars, in the schema's order: a row gives all of them, or none when all are missing;
- `1`, `2`, … the first, second, … of the schema's other columns: int64 in decimal, or strings;
- a column's name, that column.

A slot that is absent, or whose value is empty, is missing. One that is given several times fills a list; for a scalar column that
is an error, since a value would be lost. No value holds a tab, a space or a colon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.csv

from data_exchange_center.rows.faults import Faults, MalformedRow, report
from data_exchange_center.rows.lines import Lines, counts_in, impure, lines_of, normalized, rejoined
from data_exchange_center.rows.schema import RowSchema
from data_exchange_center.rows.values import (
    Converter,
    integers,
    labels,
    not_a,
    numbers,
    salvage,
    shape_lists,
    shape_scalars,
    shown,
    strings,
)

CLICK, DENSE = "click", "dense_feature"
TAB = 9
_DENSE_CODE, _UNKNOWN = -2, -1
_CONVERTERS: dict[str, Converter] = {"float32": numbers, "int64": integers, "string": strings}
Tokens = tuple[pa.DictionaryArray, pa.Array, np.ndarray]  # slots, values, number in each line
_EMPTY_TOKENS = re.compile(rb"(?m)^\t+|\t+$|\t(?=\t)")


@dataclass(frozen=True)
class Slots:
    """Which column a token's slot fills.

    Attributes:
        codes: slot -> place of its column in the schema, or `_DENSE_CODE`.
        dense: places of the columns that `dense_feature` fills.
    """

    codes: dict[str, int]
    dense: np.ndarray


@lru_cache(maxsize=32)
def slots_of(schema: RowSchema) -> Slots:
    """The slots of a schema's columns."""
    places = {column.name: place for place, column in enumerate(schema.columns)}
    dense = [column for column in schema.features if column.kind == "float32" and not column.is_list]
    others = [column for column in schema.features if column not in dense]
    codes = {str(number): places[column.name] for number, column in enumerate(others, start=1)}
    codes |= {DENSE: _DENSE_CODE} if dense else {}
    codes |= {CLICK: 0} if schema.label else {}
    return Slots(codes | places, np.array([places[column.name] for column in dense], np.int64))


def has_slot_label(line: bytes, schema: RowSchema) -> bool:
    """Whether a row has the schema's label."""
    if schema.label is None:
        return False
    heads = (CLICK.encode() + b":", schema.label.name.encode() + b":")
    return any(token.startswith(heads) for token in line.replace(b" ", b"\t").split(b"\t"))


def parse_slot_text(
    chunk: bytes | pa.Buffer,
    schema: RowSchema,
    first_line: int = 1,
    *,
    source: str = "",
    faults: Faults | None = None,
) -> pa.RecordBatch:
    """Parses whole lines; arguments, result and errors are those of `parse_tsv`."""
    text = normalized(bytes(chunk), first=first_line == 1).replace(b" ", b"\t")
    lines, kept, problems, (slots, values, counts) = _well_formed(text)
    parsed = _Rows(schema, np.repeat(np.arange(len(kept)), counts), len(kept), slots, values)
    arrays = parsed.arrays()
    for place, problem in parsed.problems.items():
        problems[int(kept[place])] = problem
    for place in sorted(problems):
        report(faults, MalformedRow(source, problems[place], line=first_line + int(lines.numbers[place])))
    if parsed.problems:
        sound = pa.array(~np.isin(np.arange(len(kept)), np.fromiter(parsed.problems, np.int64)))
        arrays = [array.filter(sound) for array in arrays]
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)


def _well_formed(text: bytes) -> tuple[Lines, np.ndarray, dict[int, str], Tokens]:
    """All lines, places of those made of tokens, why the others are not (by place), and the tokens of the former."""
    try:
        lines, tokens = _lines_and_tokens(text)
    except pa.ArrowInvalid:
        text = _EMPTY_TOKENS.sub(b"", text)
    else:
        return lines, np.arange(len(lines)), {}, tokens
    try:
        lines, tokens = _lines_and_tokens(text)
    except pa.ArrowInvalid:
        lines = lines_of(text)
        problems = _misformed(text, lines)
        kept = np.setdiff1d(np.arange(len(lines)), np.fromiter(problems, np.int64))
        return lines, kept, problems, _lines_and_tokens(rejoined(text, lines, kept))[1]
    return lines, np.arange(len(lines)), {}, tokens


def _lines_and_tokens(text: bytes) -> tuple[Lines, Tokens]:
    """The lines, and slot and value of every token, in order, and the tokens of each line, [lines].

    `pa.ArrowInvalid` when a token is not `slot:value`.
    """
    if b"\0" in text or b"\r" in text:
        raise pa.ArrowInvalid("not plain lines")
    lines = lines_of(text)
    counts = counts_in(text, TAB, lines) + 1
    slots, values = _tokens(text)
    if len(slots) != counts.sum():
        raise pa.ArrowInvalid("an empty token")
    return lines, (slots, values, counts)


def _tokens(text: bytes) -> tuple[pa.DictionaryArray, pa.Array]:
    slots = pa.dictionary(pa.int32(), pa.string())
    if not text.strip(b"\n\t"):
        return pa.array([], slots), pa.array([], pa.binary())
    tokens = text.replace(b"\t", b"\n")
    table = pyarrow.csv.read_csv(
        pa.BufferReader(tokens),
        read_options=pyarrow.csv.ReadOptions(
            column_names=["slot", "value"], use_threads=False, block_size=len(tokens) + 1
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=":", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={"slot": slots, "value": pa.binary()}, null_values=[""], strings_can_be_null=True
        ),
    )
    if table["slot"].null_count:
        raise pa.ArrowInvalid("a token without a slot")
    return table["slot"].combine_chunks(), table["value"].combine_chunks()


def _misformed(text: bytes, lines: Lines) -> dict[int, str]:
    """Place of each line that is not made of `slot:value` tokens -> why."""
    problems = impure(text, lines)
    for place, (start, end) in enumerate(zip(lines.starts, lines.ends, strict=True)):
        for token in text[start:end].split(b"\t") if place not in problems else ():
            slot = token.partition(b":")[0]
            if token.count(b":") != 1 or not slot:
                problems[place] = f"{shown(token)} is not slot:value"
                break
            if not _is_text(slot):
                problems[place] = f"slot {shown(slot)} is not UTF-8 text"
                break
    return problems


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Rows:
    """Tokens of whole rows, put into the schema's columns. `problems`: row -> the first thing that is wrong with it."""

    def __init__(
        self, schema: RowSchema, row_of: np.ndarray, rows: int, slots: pa.DictionaryArray, values: pa.Array
    ) -> None:
        self.problems: dict[int, str] = {}
        self._schema, self._rows = schema, rows
        known = slots_of(schema)
        names = slots.dictionary.to_pylist()
        codes_of = np.array([known.codes.get(name, _UNKNOWN) for name in names] or [_UNKNOWN], np.int16)
        indices = np.asarray(slots.indices)
        codes = codes_of[indices]
        for token in np.flatnonzero(codes == _UNKNOWN):
            self._blame(int(row_of[token]), f"unknown slot {shown(names[indices[token]])}")
        self._number_dense(codes, row_of, known.dense)
        order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[order], np.arange(len(schema.columns) + 1))
        self._row_of, self._values = row_of[order], values.take(pa.array(order))

    def _blame(self, row: int, problem: str) -> None:
        self.problems.setdefault(row, problem)

    def _number_dense(self, codes: np.ndarray, row_of: np.ndarray, dense: np.ndarray) -> None:
        """Gives the tokens of `dense_feature` the codes of the columns that they fill, in turn."""
        tokens = np.flatnonzero(codes == _DENSE_CODE)
        if not len(tokens):
            return
        rows = row_of[tokens]
        counts = np.bincount(rows, minlength=self._rows)
        for row in np.flatnonzero((counts != 0) & (counts != len(dense))):
            self._blame(int(row), f"{counts[row]} values of {DENSE}, {len(dense)} are expected, or none")
        turn = np.arange(len(tokens)) - (np.cumsum(counts) - counts)[rows]
        codes[tokens] = np.where(turn < len(dense), dense[np.minimum(turn, len(dense) - 1)], _UNKNOWN)

    def arrays(self) -> list[pa.Array]:
        """The columns, in order; rows with problems hold anything."""
        return [self._column(place) for place in range(len(self._schema.columns))]

    def _column(self, place: int) -> pa.Array:
        column = self._schema.columns[place]
        start, stop = int(self._starts[place]), int(self._starts[place + 1])
        rows, texts = self._row_of[start:stop], self._values.slice(start, stop - start)
        values, wrong = salvage(texts, labels if column.label else _CONVERTERS[column.kind])
        for token in wrong:
            found = texts[token].as_py()
            state = "is missing" if found is None else f"is {shown(found)}, {not_a(column)}"
            self._blame(int(rows[token]), f"{column.name!r} {state}")
        if column.is_list:
            if values.null_count:
                there = values.is_valid()
                rows, values = rows[np.asarray(there)], values.drop_null()
            counts = np.bincount(rows, minlength=self._rows)
            if column.length:
                for row in np.flatnonzero(counts > column.length):
                    self._blame(int(row), f"{column.name!r} has {counts[row]} values, {column.length} at most")
            return shape_lists(column, np.concatenate(([0], np.cumsum(counts))), values)
        if len(rows) == self._rows and np.array_equal(rows, np.arange(self._rows)):
            return shape_scalars(column, values)
        return shape_scalars(column, self._scattered(column.name, column.label, rows, values))

    def _scattered(self, name: str, label: bool, rows: np.ndarray, values: pa.Array) -> pa.Array:
        """One value a row of those that not every row has exactly once."""
        counts = np.bincount(rows, minlength=self._rows)
        for row in np.flatnonzero(counts > 1):
            self._blame(int(row), f"{name!r} has {counts[row]} values, and is declared to hold one")
        if label:
            for row in np.flatnonzero(counts == 0):
                self._blame(int(row), f"{CLICK} is missing")
        places = np.full(self._rows, -1)
        places[rows] = np.arange(len(rows))
        return values.take(pa.array(places, mask=places < 0))
