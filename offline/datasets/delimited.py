"""Delimited text to Arrow, strictly: a row that cannot be parsed is an error that names its file and line.

The fast path is Arrow's own reader with the column types given. Only when it refuses a file is the file read again, line by
line, to say which problems it has, how many rows have each, and where the first of each stands.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from data_exchange_center.dataset_info import Finding
from data_exchange_center.errors import DataError
from offline.datasets.raw_files import RawFile

JOINER = "\x1f"  # the ASCII unit separator: what `::` becomes, since Arrow splits at single characters


class UnreadableRows(DataError):
    """Rows that cannot be parsed; `findings` has each kind of problem, counted, with its first row."""

    def __init__(self, what: object, findings: list[Finding]) -> None:
        lines = "".join(f"\n  {finding}" for finding in findings)
        super().__init__(f"{what}: rows that cannot be read; nothing was written. Correct or remove them:{lines}")
        self.findings = findings


@dataclass(frozen=True)
class Layout:
    """How a delimited file is written.

    Attributes:
        columns: name -> type of the columns to read: int64, float32, float64 or string, none of them null.
        separator: between fields; more than one character is allowed for files without quotes.
        names: of all columns in the file's order; None: the first line holds them.
        quoted: fields may stand in double quotes, with a doubled quote for a quote.
        encoding: of the text.
        nullable: columns in which an empty field means null; in others it is an error, or the empty string.
    """

    columns: dict[str, pa.DataType]
    separator: str = ","
    names: tuple[str, ...] | None = None
    quoted: bool = True
    encoding: str = "utf-8"
    nullable: frozenset[str] = frozenset()


def read_delimited(file: RawFile, layout: Layout) -> pa.Table:
    """Reads the layout's columns, in its order; blank lines are skipped.

    Raises:
        DataError: a missing column.
        UnreadableRows: rows that do not parse: each kind with its count and the first row's file and line.
    """
    if layout.names is None:
        _check_header(file, layout)
    nullable = [name for name in layout.columns if name in layout.nullable]
    try:
        with file.open() as stream, _bar(file) as bar:
            source = CallbackIOWrapper(bar.update, stream, "read")
            table = pa.csv.read_csv(
                io.BytesIO(_single_separator(source.read(), layout)) if len(layout.separator) > 1 else source,
                read_options=pa.csv.ReadOptions(
                    column_names=layout.names, encoding=layout.encoding, block_size=1 << 24
                ),
                parse_options=pa.csv.ParseOptions(
                    delimiter=layout.separator if len(layout.separator) == 1 else JOINER,
                    quote_char='"' if layout.quoted else False,
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=layout.columns,
                    include_columns=list(layout.columns),
                    null_values=[""] if nullable else [],
                    strings_can_be_null=bool(nullable),
                ),
            )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        findings = diagnose(file, layout)
        if not findings:
            raise DataError(f"{file}: cannot be parsed: {error}") from error
        raise UnreadableRows(file, findings) from error
    for place, (name, kind) in enumerate(layout.columns.items()):
        if name in layout.nullable or not table[name].null_count:
            continue
        if kind != pa.string():
            raise UnreadableRows(file, diagnose(file, layout))
        table = table.set_column(place, name, table[name].fill_null(""))
    return table


def rows(file: RawFile, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number from 1, fields) of each data row, slowly; broken text comes as lone surrogates."""
    with file.open() as stream:
        text = _decoded(stream, layout)
        header_left = layout.names is None
        for line, fields in _fields(text, layout):
            if not header_left:
                yield line, fields
            header_left = False


def line_of_row(file: RawFile, layout: Layout, row: int) -> int:
    """The line, from 1, on which the 0-based data row starts."""
    for place, (line, _) in enumerate(rows(file, layout)):
        if place == row:
            return line
    raise DataError(f"{file}: has no row {row}")


def diagnose(file: RawFile, layout: Layout) -> list[Finding]:
    """Every kind of row that cannot be parsed, counted, with the first one's line and content."""
    names = layout.names or header(file, layout)
    checks = [
        (names.index(name), name, _check_of(kind, name in layout.nullable)) for name, kind in layout.columns.items()
    ]
    counts: dict[str, int] = {}
    firsts: dict[str, str] = {}
    for line, fields in rows(file, layout):
        problem, shown = _problem(fields, len(names), checks)
        if problem:
            counts[problem] = counts.get(problem, 0) + 1
            firsts.setdefault(problem, f"{file}:{line}: {shown}")
    return [
        Finding(problem=problem, rows=counts[problem], first=firsts[problem], action="refused") for problem in counts
    ]


def header(file: RawFile, layout: Layout) -> tuple[str, ...]:
    """The names in the file's first line."""
    with file.open() as stream:
        for _, fields in _fields(_decoded(stream, layout), layout):
            return tuple(fields)
    raise DataError(f"{file}: is empty")


def _bar(file: RawFile) -> tqdm:
    """Bytes read so far; shown when reading takes longer than a second."""
    name = Path(file.member or file.path).name
    return tqdm(desc=f"reading {name}", total=file.size, unit="B", unit_scale=True, unit_divisor=1024, delay=1.0)


def _check_header(file: RawFile, layout: Layout) -> None:
    names = header(file, layout)
    for name in layout.columns:
        if names.count(name) != 1:
            state = "is missing" if name not in names else "stands there more than once"
            has = ", ".join(names)[:200]
            raise DataError(f"{file}:1: column {name!r} {state} (has {has}){_advice(names, layout)}", field=name)


def _advice(names: tuple[str, ...], layout: Layout) -> str:
    """What to do about a header without the wanted column, where its form tells."""
    if not all(letter.isprintable() or letter.isspace() for name in names for letter in name):
        return "; this is no text in the encoding " + layout.encoding + ": set `encoding`, or write CSV or Parquet"
    other = next((one for one in ";\t|," if len(names) == 1 and one in names[0]), "")
    if other:
        return f"; fields seem to be separated by {other!r}: set `separator`"
    if any(name != name.strip() for name in names):
        return "; names hold spaces at their ends"
    return ""


def _decoded(stream: IO[bytes], layout: Layout) -> io.TextIOWrapper:
    """The stream as text, without a byte order mark; bytes that are not the encoding come as lone surrogates."""
    encoding = codecs.lookup(layout.encoding).name
    wide = encoding.startswith(("utf-16", "utf-32"))  # they have no such escape
    return io.TextIOWrapper(
        stream,
        encoding="utf-8-sig" if encoding == "utf-8" else encoding,
        errors="replace" if wide else "surrogateescape",
        newline="",
    )


def _fields(text: io.TextIOWrapper, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    if not layout.quoted:
        for line, content in enumerate(text, start=1):
            stripped = content.rstrip("\r\n")
            if stripped:
                yield line, stripped.split(layout.separator)
        return
    reader = csv.reader(text, delimiter=layout.separator)
    first = 1
    for fields in reader:
        if fields:
            yield first, fields
        first = reader.line_num + 1


def _single_separator(content: bytes, layout: Layout) -> bytes:
    return content.replace(layout.separator.encode(), JOINER.encode())


def _check_of(kind: pa.DataType, nullable: bool) -> Callable[[str], bool]:
    """A function that says whether a field parses as `kind`."""
    if pa.types.is_integer(kind):
        parse: Callable[[str], object] = _integer
    elif pa.types.is_floating(kind):
        parse = float
    else:
        return lambda text: (
            not any("\ud800" <= letter <= "\udfff" for letter in text)
        )  # bytes that are not the encoding

    def parses(text: str) -> bool:
        if nullable and not text:
            return True
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return parses


def _integer(text: str) -> int:
    value = int(text) if "_" not in text else int("x")
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _problem(fields: list[str], width: int, checks: list[tuple[int, str, Callable[[str], bool]]]) -> tuple[str, str]:
    if len(fields) != width:
        return f"not {width} fields", f"{len(fields)} fields, begins {fields[0][:40]!r}"
    for place, name, parses in checks:
        if not parses(fields[place]):
            return f"{name!r} cannot be parsed", f"{name} = {fields[place][:60]!r}"
    return "", ""
