"""Rows of Parquet and ORC files: columns found by name, in scalars or lists, brought to the schema's types.

What is taken for what:

- numbers: any number or bool; NaN is missing, infinity malformed;
- int64: integers; whole float64 (what pandas makes of integers with gaps); text by `rows/categories.py`;
- a list of one element is that scalar, an empty one is missing; a scalar is a list of one;
- columns that the schema does not know are left out; when the label's is not there, the rows are unlabelled.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.orc
import pyarrow.parquet as pq

from data_exchange_center.errors import DataError
from data_exchange_center.rows.categories import category_ids, spread
from data_exchange_center.rows.faults import Faults, MalformedRow, report
from data_exchange_center.rows.schema import ARROW, RowColumn, RowSchema
from data_exchange_center.rows.values import finite, judged, not_a, salvage, shape_lists, shape_scalars, shown

BATCH = 16_384  # rows of a Parquet file that are decoded at once; more are faster and take more memory
types = pa.types


def schema_in_file(found: pa.Schema, schema: RowSchema, source: str) -> RowSchema:
    """The schema as a file has it: without the label when the file has none.

    Raises:
        DataError: a column that is missing, stands there twice or is of a type that cannot become the declared one.
    """
    present = schema if schema.label and schema.label.name in found.names else schema.unlabelled
    for column in present.columns:
        count = found.names.count(column.name)
        if count != 1:
            near = difflib.get_close_matches(column.name, found.names, n=1)
            state = "stands there more than once" if count else "is missing"
            hint = f"; did you mean {near[0]!r}?" if near and not count else ""
            shown_names = ", ".join(found.names[:50])
            raise DataError(f"{source}: column {column.name!r} {state} (has {shown_names}){hint}", field=column.name)
        if not _can_become(found.field(column.name).type, column):
            kind = found.field(column.name).type
            raise DataError(
                f"{source}: column {column.name!r} is {kind}, declared is {column.arrow}", field=column.name
            )
    return present


def conform(
    batch: pa.RecordBatch, schema: RowSchema, first_row: int = 0, *, source: str = "", faults: Faults | None = None
) -> pa.RecordBatch:
    """Brings a batch that has the schema's columns (`schema_in_file`) to its types and order.

    Args:
        batch: as read.
        schema: of the result.
        first_row: number of the batch's first row in the file, for messages.
        source: the file's name, for messages.
        faults: counts malformed rows, which are left out then; None: the first one is an error.

    Raises:
        MalformedRow: a value that does not fit, with source and row.
    """
    problems: dict[int, str] = {}
    arrays = []
    for column in schema.columns:
        found = batch.column(column.name)

        def convert(values: pa.Array, column: RowColumn = column) -> pa.Array:
            return _column(column, values)

        array, wrong = salvage(found, convert)
        for row in wrong:
            problems.setdefault(int(row), _problem(column, found[int(row)].as_py()))
        arrays.append(array)
    for row in sorted(problems):
        report(faults, MalformedRow(source, problems[row], row=first_row + row))
    made = pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)
    if not problems:
        return made
    return made.filter(pa.array(~np.isin(np.arange(len(batch)), np.fromiter(problems, np.int64))))


class ParquetRows:
    """A Parquet file whose row groups are read one by one, in batches.

    Args:
        file: a path, or an open file that can be sought (an upload).
        schema: of the rows wanted.
        source: its name in messages; by default the path.
        metadata: of the same file, from another `ParquetRows`, to save reading it again.

    Attributes:
        schema: as the file has it. pieces: rows of each row group. metadata: to open the file again with.

    Raises:
        DataError: not a whole Parquet file, or a column is missing.
    """

    def __init__(
        self, file: Path | BinaryIO, schema: RowSchema, source: str = "", metadata: pq.FileMetaData | None = None
    ) -> None:
        self.source = source or str(file)
        with readable("Parquet", self.source):
            self._file = pq.ParquetFile(str(file) if isinstance(file, Path) else file, metadata=metadata)
            found = self._file.schema_arrow
            self.metadata = self._file.metadata
            groups = range(self.metadata.num_row_groups)
            self.pieces = [self.metadata.row_group(place).num_rows for place in groups]
        self.schema = schema_in_file(found, schema, self.source)

    def batches(self, piece: int, rows: int = BATCH) -> Iterator[pa.RecordBatch]:
        """The row group's columns as they are in the file, in batches of so many rows at most."""
        with readable("Parquet", self.source):
            yield from self._file.iter_batches(rows, row_groups=[piece], columns=self.schema.names, use_threads=False)


class OrcRows:
    """An ORC file whose stripes are read one by one; arguments and attributes are those of `ParquetRows`.

    Arrow tells a stripe's rows only by reading it: `metadata` are the rows of each stripe, found out once, by the first column.
    """

    def __init__(
        self, file: Path | BinaryIO, schema: RowSchema, source: str = "", metadata: list[int] | None = None
    ) -> None:
        self.source = source or str(file)
        with readable("ORC", self.source):
            self._file = pyarrow.orc.ORCFile(str(file) if isinstance(file, Path) else file)
            self.schema = schema_in_file(self._file.schema, schema, self.source)
            self.pieces = self._stripes() if metadata is None else metadata
        self.metadata = self.pieces

    def _stripes(self) -> list[int]:
        if self._file.nstripes == 1:
            return [self._file.nrows]
        first = self.schema.names[:1]
        return [len(self._file.read_stripe(stripe, columns=first)) for stripe in range(self._file.nstripes)]

    def batches(self, piece: int, rows: int = BATCH) -> Iterator[pa.RecordBatch]:
        """The stripe's columns as they are in the file, in one batch whatever it has."""
        with readable("ORC", self.source):
            yield self._file.read_stripe(piece, columns=self.schema.names)


@contextmanager
def readable(kind: str, source: str) -> Iterator[None]:
    """Makes errors of the decoder, of whatever class, one that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{source}: no such file") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, UnicodeDecodeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{source}: not a whole, readable {kind} file: {reason}") from error


def parquet_batches(
    file: Path | BinaryIO, schema: RowSchema, *, source: str = "", faults: Faults | None = None
) -> Iterator[pa.RecordBatch]:
    """All rows of a Parquet file, in bounded memory: what `RowParser` is for text.

    Raises:
        MalformedRow: with the row, from 0. DataError: not a whole Parquet file, or a column is missing.
    """
    rows = ParquetRows(file, schema, source)
    first = 0
    for piece in range(len(rows.pieces)):
        for batch in rows.batches(piece):
            yield conform(batch, rows.schema, first, source=rows.source, faults=faults)
            first += len(batch)


def _is_any_list(kind: pa.DataType) -> bool:
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)


def _can_become(kind: pa.DataType, column: RowColumn) -> bool:
    if _is_any_list(kind):
        kind = kind.value_type
    if types.is_dictionary(kind) and not _is_text(kind):
        kind = kind.value_type
    if types.is_null(kind):
        return True
    if column.kind == "string":
        return _is_text(kind)
    if column.kind == "int64":
        return types.is_integer(kind) or types.is_float64(kind) or types.is_boolean(kind) or _is_text(kind)
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)


def _column(column: RowColumn, values: pa.Array) -> pa.Array:
    """One column; `pa.ArrowInvalid` when a value does not fit."""
    if not _is_any_list(values.type):
        return shape_scalars(column, _elements(column, values))
    if not types.is_list(values.type):
        values = values.cast(pa.list_(values.type.value_type))
    offsets = np.asarray(values.offsets)
    lengths = np.diff(offsets)
    if values.null_count:
        flat = values.flatten()  # without what may lie under a null
        lengths = np.where(np.asarray(values.is_valid()), lengths, 0)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
    else:
        flat = values.values.slice(offsets[0], offsets[-1] - offsets[0])
        offsets = offsets - offsets[0] if offsets[0] else offsets
    elements = _elements(column, flat)
    if not column.is_list:
        return shape_scalars(column, _only_one(elements, lengths, offsets))
    if column.length:
        if lengths.max(initial=0) > column.length:
            raise pa.ArrowInvalid("too many values")
        elements = elements.fill_null(pa.scalar(column.default, ARROW[column.kind]))
    return shape_lists(column, offsets, elements)


def _only_one(elements: pa.Array, lengths: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """The elements of lists that hold one or none, as scalars or nulls."""
    if lengths.max(initial=0) > 1:
        raise pa.ArrowInvalid("more than one value")
    if len(elements) == len(lengths):
        return elements
    there = lengths != 0
    if elements.null_count or types.is_string(elements.type):
        return elements.take(pa.array(offsets[:-1], mask=~there))
    return spread(elements.to_numpy(), there, offsets[:-1])


def _elements(column: RowColumn, values: pa.Array) -> pa.Array:
    kind = values.type
    wanted = ARROW[column.kind]
    if types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if types.is_null(kind) or column.kind == "string":
        made = values.cast(wanted)
    elif column.kind == "int64":
        made = category_ids(values) if _is_text(kind) else _without_nan(values).cast(wanted)
    else:
        made = _without_nan(values, wanted) if types.is_floating(kind) else finite(values.cast(wanted, safe=False))
    return judged(made) if column.label else made


def _without_nan(values: pa.Array, wanted: pa.DataType | None = None) -> pa.Array:
    """Finite floats with null for NaN, of the wanted type; a NaN is looked for only when some number is not finite."""
    if not types.is_floating(values.type):
        return values
    made = values.cast(wanted) if wanted is not None else values
    try:
        return finite(made)
    except pa.ArrowInvalid:
        return finite(pc.if_else(pc.is_nan(made), pa.scalar(None, made.type), made))


def _problem(column: RowColumn, value: Any) -> str:
    if isinstance(value, list):
        most = column.length if column.is_list else 1
        if most and len(value) > most:
            declared = f"{most} at most" if column.is_list else "and is declared to hold one"
            return f"{column.name!r} has {len(value)} values, {declared}"
        value = value[0] if len(value) == 1 else value or None
    if value is None:
        return f"{column.name!r} is missing"
    return f"{column.name!r} is {shown(value)}, {not_a(column)}"
