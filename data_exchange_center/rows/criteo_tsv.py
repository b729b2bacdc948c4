"""Criteo's tab-separated rows: the label, 13 integers, 26 categories; an empty field is a missing value.

The format of the Criteo Display Advertising Challenge and of the 1 TB click logs (https://ailab.criteo.com/ressources/). Files
to be scored have no label: 39 fields. Any other schema is written the same way, a field a column: numbers in decimal,
int64 columns as categories (`rows/categories.py`), strings as they are; there are no quotes and no escapes.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from data_exchange_center.rows.faults import Faults, MalformedRow, report
from data_exchange_center.rows.lines import counts_in, impure, lines_of, normalized, rejoined
from data_exchange_center.rows.schema import RowColumn, RowSchema
from data_exchange_center.rows.values import (
    converter_of,
    finite,
    judged,
    not_a,
    salvage,
    shape_scalars,
    shown,
)

TAB = 9


def has_tsv_label(line: bytes, schema: RowSchema) -> bool:
    """Whether a row has the schema's label: told from its number of fields."""
    return schema.label is not None and line.count(b"\t") + 1 == len(schema.columns)


def tsv_fits(line: bytes, schema: RowSchema) -> bool:
    """Whether a row has as many fields as the schema, with or without the label."""
    return line.count(b"\t") + 1 in (len(schema.columns), len(schema.features))


def parse_tsv(
    chunk: bytes | pa.Buffer,
    schema: RowSchema,
    first_line: int = 1,
    *,
    source: str = "",
    faults: Faults | None = None,
) -> pa.RecordBatch:
    """Parses whole lines.

    Args:
        chunk: the text; the last line may lack its end.
        schema: of exactly these fields: `schema.unlabelled` for rows without a label.
        first_line: the number of its first line in the file, for messages. At 1 a byte order mark is dropped.
        source: the file's name, for messages.
        faults: counts malformed rows, which are left out then; None: the first one is an error.

    Returns:
        One row a line, blank lines left out.

    Raises:
        MalformedRow: a row that cannot be read, with source and line.
    """
    text = normalized(bytes(chunk), first=first_line == 1)
    if b"\r" not in text and b"\0" not in text:
        try:
            return _all_at_once(text, schema)
        except pa.ArrowInvalid:
            pass  # a malformed row among them
    return _row_by_row(text, schema, first_line, source, faults)


def _all_at_once(text: bytes, schema: RowSchema) -> pa.RecordBatch:
    """Every row, or `pa.ArrowInvalid` when one of them is malformed."""
    types = {
        column.name: pa.float32() if column.kind == "float32" else pa.binary()  # categories are converted below
        for column in schema.columns
    }
    read = _read(text, types)
    return _batch(schema, [_converted(column, read[column.name]) for column in schema.columns])


def _converted(column: RowColumn, values: pa.Array) -> pa.Array:
    if column.kind != "float32":
        return converter_of(column)(values)
    return judged(finite(values)) if column.label else finite(values)


def _read(text: bytes, types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    if not text.strip(b"\n"):
        return {name: pa.array([], kind) for name, kind in types.items()}
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(column_names=list(types), use_threads=False, block_size=len(text) + 1),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    )
    return {name: table[name].combine_chunks() for name in types}


def _row_by_row(text: bytes, schema: RowSchema, first_line: int, source: str, faults: Faults | None) -> pa.RecordBatch:
    """The rows that can be read; the others are told apart first by their form, then value by value."""
    lines = lines_of(text)
    problems = impure(text, lines)  # place in `lines` -> what is wrong
    fields = counts_in(text, TAB, lines) + 1
    width = len(schema.columns)
    for place in np.flatnonzero(fields != width).tolist():
        wanted = f"{width} are expected ({schema.names[0]} … {schema.names[-1]})"
        problems.setdefault(place, f"{fields[place]} tab-separated fields, {wanted}")
    whole = np.setdiff1d(np.arange(len(lines)), np.fromiter(problems, np.int64))
    read = _read(rejoined(text, lines, whole), {name: pa.binary() for name in schema.names})
    arrays = []
    for column in schema.columns:
        texts = read[column.name]
        values, wrong = salvage(texts, converter_of(column))
        for place in wrong:
            found = texts[place].as_py()
            state = "is missing" if found is None else f"is {shown(found)}, {not_a(column)}"
            problems.setdefault(int(whole[place]), f"{column.name!r} {state}")
        arrays.append(values)
    for place in sorted(problems):
        report(faults, MalformedRow(source, problems[place], line=first_line + int(lines.numbers[place])))
    sound = pa.array(~np.isin(whole, np.fromiter(problems, np.int64)))
    return _batch(schema, [pc.filter(array, sound) for array in arrays])


def _batch(schema: RowSchema, scalars: list[pa.Array]) -> pa.RecordBatch:
    arrays = [shape_scalars(column, array) for column, array in zip(schema.columns, scalars, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)
