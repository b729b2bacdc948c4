"""Columns of CSV or Parquet files in the types that a mapping declares; every row that does not fit is named and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_exchange_center.dataset_info import Finding
from data_exchange_center.errors import DataError, DataUnavailable
from data_exchange_center.tables import STRINGS
from offline.datasets.canonical import clean_terms, term_lists
from offline.datasets.delimited import Layout, UnreadableRows, line_of_row, read_delimited
from offline.datasets.own_log_mapping import Source
from offline.datasets.raw_files import RawFile

Kind = Literal["int64", "float32", "float64", "string", "s", "ms", "iso", "flag", "terms", "year"]
CSV_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(), "float32": pa.float32(), "float64": pa.float64(), "s": pa.float64(), "ms": pa.float64(),
}  # fmt: skip
FLAGS = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0}


@dataclass(frozen=True)
class Wanted:
    """A column to read.

    Attributes:
        column: its name in the file.
        kind: a type; or `s`, `ms`, `iso` for a time, which becomes int64 unix seconds; `flag` for 0/1, which becomes int8;
            `terms` for a list of strings; `year` for an int64, 0 where there is none.
        nullable: an empty value means null; else it is a problem.
        separator: of terms.
    """

    column: str
    kind: Kind
    nullable: bool = False
    separator: str = "|"


@dataclass(frozen=True)
class Read:
    """What was read: the table, and where each of its rows stands."""

    table: pa.Table
    place: Callable[[int], str]


def find_files(source: Source, base: Path) -> list[Path]:
    """The files that a source names, in the order of their names; DataUnavailable when there are none."""
    pattern = Path(source.file).expanduser()
    if pattern.is_absolute():
        found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    else:
        found = sorted(base.glob(source.file))
    if not found and (base / pattern).is_file():  # a name that holds what patterns are made of
        found = [base / pattern]
    files = [path for path in found if path.is_file()]
    if not files:
        raise DataUnavailable(
            f"{base / pattern}: no such file; correct `file` in the YAML, or point DATA= to its folder"
        )
    return files


def read_columns(source: Source, base: Path, wanted: dict[str, Wanted]) -> Read:
    """Reads columns of one or several files, one after the other.

    Args:
        source: which files, and how they are written.
        base: folder that relative names start from.
        wanted: name in the result -> column.

    Raises:
        DataError: a missing column, or one of a type that cannot be what is declared.
        UnreadableRows: rows that do not fit, over all files.
    """
    tables, places, findings = [], [], []
    for path in find_files(source, base):
        try:
            table, place = _read_file(path, source, wanted)
            tables.append(table)
            places.append(place)
        except UnreadableRows as error:
            findings += error.findings
    if findings:
        raise UnreadableRows(source.file, findings)
    ends = np.cumsum([table.num_rows for table in tables])

    def place_of(row: int) -> str:
        which = int(np.searchsorted(ends, row, side="right"))
        return places[which](row - int(ends[which - 1] if which else 0))

    return Read(pa.concat_tables(tables).combine_chunks(), place_of)


def _read_file(path: Path, source: Source, wanted: dict[str, Wanted]) -> tuple[pa.Table, Callable[[int], str]]:
    columns = sorted({one.column for one in wanted.values()})
    if path.suffix.lower() == ".parquet":
        raw = _read_parquet(path, columns)
        place = lambda row: f"{path} row {row + 1}"  # noqa: E731
    else:
        file, layout = RawFile(path), _layout(path, source, wanted)
        raw = read_delimited(file, layout)
        place = lambda row: f"{path}:{line_of_row(file, layout, row)}"  # noqa: E731
    made: dict[str, pa.ChunkedArray] = {}
    findings = []
    for name, one in wanted.items():
        values, bad = _convert(path, raw[one.column], one)
        if bad.any():
            row = int(np.argmax(bad))
            shown = f"{place(row)}: {one.column} = {raw[one.column][row].as_py()!r}"
            problem = f"{one.column!r} is empty or not {_expected(one)}"
            findings.append(Finding(problem=problem, rows=int(bad.sum()), first=shown, action="refused"))
        made[name] = values
    if findings:
        raise UnreadableRows(path, findings)
    return pa.table(made), place


def _layout(path: Path, source: Source, wanted: dict[str, Wanted]) -> Layout:
    separator = source.separator or ("\t" if ".tsv" in path.suffixes else ",")
    types = {one.column: CSV_TYPES.get(one.kind, pa.string()) for one in wanted.values()}
    strict = {one.column for one in wanted.values() if not one.nullable}
    return Layout(types, separator=separator, encoding=source.encoding, nullable=frozenset(set(types) - strict))


def _read_parquet(path: Path, columns: list[str]) -> pa.Table:
    try:
        known = pq.read_schema(path).names
        missing = [column for column in columns if column not in known]
        if missing:
            raise DataError(f"{path}: column {missing[0]!r} is missing (has {', '.join(known)})", field=missing[0])
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _convert(path: Path, values: pa.ChunkedArray, wanted: Wanted) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The values in their final type, and which rows are empty or do not fit. -> ([rows], [rows] bool)."""
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type) or pa.types.is_null(values.type):
        values = pc.cast(values, pa.string())
    if wanted.nullable and pa.types.is_floating(values.type):  # some writers of Parquet say NaN for nothing
        values = pc.if_else(pc.fill_null(pc.is_nan(values), False), pa.scalar(None, values.type), values)
    if wanted.kind == "terms":
        return _terms(path, values, wanted), np.zeros(len(values), dtype=bool)
    try:
        converted = _CONVERTERS[wanted.kind](values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError) as error:
        raise DataError(
            f"{path}: column {wanted.column!r} is {values.type}, and cannot be {_expected(wanted)}: {error}",
            field=wanted.column,
        ) from error
    lost = pc.is_null(converted)
    bad = pc.and_(lost, pc.is_valid(values)) if wanted.nullable else lost
    if not wanted.nullable and pa.types.is_string(converted.type):
        bad = pc.or_(bad, pc.fill_null(pc.equal(converted, ""), True))
    return converted, bad.to_numpy()


def _integers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_integer(values.type):
        raise TypeError("ids and counts do not travel as fractions; write the column as integers")
    return pc.cast(values, pa.int64())


def _strings(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not (pa.types.is_string(values.type) or pa.types.is_integer(values.type)):
        raise TypeError("write the column as text")
    return pc.cast(values, pa.string())


def _numbers(kind: pa.DataType) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    def convert(values: pa.ChunkedArray) -> pa.ChunkedArray:
        if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            raise TypeError("write the column as numbers")
        numbers = pc.cast(values, kind, safe=False)
        return pc.if_else(pc.fill_null(pc.is_finite(numbers), False), numbers, pa.scalar(None, kind))

    return convert


def _seconds(per_second: int) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    def convert(values: pa.ChunkedArray) -> pa.ChunkedArray:
        if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            return _moments(values)
        numbers = _numbers(pa.float64())(values)  # exact up to 2^53: any second or millisecond of this era
        inside = pc.less(pc.abs(numbers), 2.0**62)
        return pc.cast(pc.if_else(inside, pc.floor(pc.divide(numbers, float(per_second))), None), pa.int64())

    return convert


def _moments(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps, or text in ISO 8601, to unix seconds; without an offset they are UTC, and what is no time becomes null."""
    if pa.types.is_date(values.type):
        values = pc.cast(values, pa.timestamp("s"))
    if pa.types.is_timestamp(values.type):
        return pc.cast(pc.cast(values, pa.timestamp("s", values.type.tz), safe=False), pa.int64())
    if not pa.types.is_string(values.type):
        raise TypeError("write the column as text in ISO 8601, or give the unit s or ms")
    moments = pd.to_datetime(values.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    seconds = moments.astype("datetime64[s, UTC]").astype("int64").to_numpy()
    return pa.chunked_array([pa.array(seconds, pa.int64(), mask=moments.isna().to_numpy())])


def _flags(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(values.type):
        values = pc.cast(values, pa.int64())
    text = pc.ascii_lower(pc.utf8_trim_whitespace(pc.cast(values, pa.string())))
    place = pc.index_in(text, value_set=pa.array(list(FLAGS)))
    return pc.take(pa.array(list(FLAGS.values()), pa.int8()), place)


def _terms(path: Path, values: pa.ChunkedArray, wanted: Wanted) -> pa.ChunkedArray:
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_integer(inner):
            return clean_terms(pc.cast(values, STRINGS).to_pylist())
    elif pa.types.is_string(kind):
        return term_lists(values, wanted.separator)
    raise DataError(
        f"{path}: column {wanted.column!r} is {kind}; terms are text or a list of text", field=wanted.column
    )


def _years(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The first four digits of text like `1999-05-01`, whole numbers and dates; 0 for anything else. int64, never null."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return pc.fill_null(pc.year(values), 0)
    if pa.types.is_floating(values.type):
        whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 1e6))
        values = pc.cast(pc.if_else(whole, values, None), pa.int64())
    digits = pc.extract_regex(pc.fill_null(_strings(values), ""), r"^(?P<year>\d{4})(?:\D|$)")
    found = pa.chunked_array([chunk.field("year") for chunk in digits.chunks], pa.string())
    return pc.fill_null(pc.cast(pc.if_else(pc.equal(found, ""), None, found), pa.int64()), 0)


_CONVERTERS: dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "int64": _integers, "string": _strings, "float32": _numbers(pa.float32()), "float64": _numbers(pa.float64()),
    "s": _seconds(1), "ms": _seconds(1000), "iso": _moments, "flag": _flags, "year": _years,
}  # fmt: skip
_EXPECTED = {
    "s": "unix seconds", "ms": "unix milliseconds", "iso": "a time in ISO 8601", "flag": "0, 1, true or false",
    "int64": "an integer", "float32": "a number", "float64": "a number", "string": "text", "year": "a year",
}  # fmt: skip


def _expected(wanted: Wanted) -> str:
    return _EXPECTED.get(wanted.kind, wanted.kind)
