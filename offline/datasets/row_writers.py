"""Record batches of raw rows to files: Criteo's TSV, slot text or Parquet, batch by batch, under their name when whole.

What is written is what `data_exchange_center/rows` reads back without loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from data_exchange_center.errors import DataError
from data_exchange_center.rows.schema import RowColumn, RowSchema
from data_exchange_center.rows.slot_text import CLICK, DENSE, slots_of
from data_exchange_center.workspace import atomic_path

RowFormat = Literal["parquet", "tsv", "slot"]
SUFFIXES: dict[RowFormat, str] = {"parquet": ".parquet", "tsv": ".tsv", "slot": ".txt"}
ROW_GROUP = 65_536
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)

Write = Callable[[pa.RecordBatch], None]


@contextmanager
def row_writer(path: Path, schema: RowSchema, form: RowFormat) -> Iterator[Write]:
    """Yields a function that appends a batch; the file appears under its name when the block ends well.

    Args:
        path: of the file.
        schema: of every batch.
        form: parquet, tsv or slot.

    Raises:
        DataError: a column that the format cannot hold.
    """
    with atomic_path(path) as temporary:
        if form == "parquet":
            with pq.ParquetWriter(temporary, schema.arrow, compression="zstd") as writer:
                yield lambda batch: writer.write_batch(batch, row_group_size=ROW_GROUP)
            return
        encode = tsv_text if form == "tsv" else slot_text
        with temporary.open("wb") as file:

            def write(batch: pa.RecordBatch) -> None:
                file.write(encode(batch, schema))

            yield write


def tsv_text(batch: pa.RecordBatch, schema: RowSchema) -> bytes:
    """The rows as Criteo's TSV: ids of up to 32 bits as 8 hexadecimal digits, others as 16; missing values empty."""
    if len(schema.columns) == 1 and batch.column(0).null_count:
        raise DataError(f"column {schema.names[0]!r}: a missing value alone would be a blank line, which is no row")
    fields = []
    for column, values in zip(schema.columns, batch.columns, strict=True):
        if column.is_list:
            raise DataError(f"column {column.name!r}: a list does not fit into a field of TSV", field=column.name)
        if column.kind == "string" and pc.any(pc.match_substring_regex(values, "[\t\r\n\\x00]")).as_py():
            raise DataError(f"column {column.name!r}: a text holds a tab, a line end or a NUL", field=column.name)
        fields.append(_hexadecimal(values) if column.kind == "int64" else _decimal(values))
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pyarrow.csv.write_csv(pa.RecordBatch.from_arrays(fields, schema.names), sink, options)
    return sink.getvalue().to_pybytes()


def slot_text(batch: pa.RecordBatch, schema: RowSchema) -> bytes:
    """The rows as slot text: missing numbers with an empty value, missing ids left out, lists as repeated slots."""
    slots = {place: slot for slot, place in reversed(slots_of(schema).codes.items()) if place >= 0}
    dense = set(slots_of(schema).dense.tolist())
    tokens = []
    for place, (column, values) in enumerate(zip(schema.columns, batch.columns, strict=True)):
        slot = CLICK if column.label else DENSE if place in dense else slots[place]
        tokens.append(_tokens(f"{slot}:", column, values, keep_missing=place in dense))
    tokens[0] = tokens[0].fill_null(f"{schema.names[0]}:")  # a row of missing values alone must not be a blank line
    lines = pc.binary_join_element_wise(*tokens, "\t", null_handling="skip").cast(pa.binary()).to_pylist()
    return b"".join(line + b"\n" for line in lines)


def _tokens(slot: str, column: RowColumn, values: pa.Array, *, keep_missing: bool) -> pa.Array:
    """The tokens of one column, tab-separated where a row has several, null where it has none."""
    if not column.is_list:
        texts = _text(column, values)
        return pc.binary_join_element_wise(slot, texts.fill_null("") if keep_missing else texts, "")
    lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
    elements = pc.binary_join_element_wise(slot, _text(column, values.flatten()), "")
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, elements), "\t")
    return pc.if_else(pa.array(lengths > 0), joined, pa.scalar(None, pa.string()))


def _text(column: RowColumn, values: pa.Array) -> pa.Array:
    if column.kind == "string" and pc.any(pc.match_substring_regex(values, "[\t\r\n: \\x00]")).as_py():
        raise DataError(f"column {column.name!r}: a text holds a space, tab, line end, colon or NUL", field=column.name)
    return _decimal(values).cast(pa.string())


def _decimal(values: pa.Array) -> pa.Array:
    """Numbers as text, whole ones without a fraction; floats with as many digits as bring them back."""
    if not pa.types.is_floating(values.type):
        return values
    plain = values.fill_null(0).to_numpy(zero_copy_only=False)
    if (plain == np.rint(plain)).all() and (np.abs(plain) < 2**53).all() and not np.signbit(plain[plain == 0]).any():
        return values.cast(pa.int64())
    return values.cast(pa.string())


def _hexadecimal(values: pa.Array) -> pa.Array:
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)
    width = 8 if (numbers < 2**32).all() else 16
    shifts = np.arange(4 * (width - 1), -1, -4, dtype=np.uint64)
    digits = _DIGITS[(numbers[:, None] >> shifts) & np.uint64(15)]
    offsets = pa.py_buffer(np.arange(0, width * (len(values) + 1), width, dtype=np.int32))
    texts = pa.Array.from_buffers(pa.string(), len(values), [None, offsets, pa.py_buffer(digits)])
    return pc.if_else(values.is_valid(), texts, pa.scalar(None, pa.string()))
