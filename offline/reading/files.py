"""Which files hold the rows, and the pieces of them that can be read on their own.

A piece is a Parquet row group, an ORC stripe, the lines that start within a stretch of a text file, or a whole gzipped text,
which cannot be entered in the middle (convert it to Parquet when that is too slow).
"""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import DataError, DataUnavailable
from data_exchange_center.rows.columnar import OrcRows, ParquetRows, conform
from data_exchange_center.rows.faults import Faults, MalformedRow, report
from data_exchange_center.rows.lines import BLOCK, LONGEST, LineBlocks, lines_of
from data_exchange_center.rows.parser import GZIP, TextFormat, columnar_format, text_format
from data_exchange_center.rows.schema import RowSchema

STRETCH = 1 << 21  # bytes of a text file that make a piece
DECODED = 1 << 16  # rows of a row group that are decoded at once
HEAD = 1 << 16  # bytes from which a text's format is told
FORMATS = ("auto", "tsv", "slot", "parquet", "orc")


@dataclass(frozen=True)
class Chunk:
    """Rows of a piece.

    Attributes:
        first: place in the piece of the first row that was looked at.
        batch: those of them that could be read.
        faults: the others.
    """

    first: int
    batch: pa.RecordBatch
    faults: Faults


class RowFile:
    """A file of rows: its format and schema, and its pieces."""

    path: Path
    schema: RowSchema
    pieces: int

    def rows(self, piece: int) -> int:
        """Rows of a piece, malformed ones counted, blank lines not."""
        raise NotImplementedError

    def chunks(self, piece: int, first: int, stop: int | None, wanted: RowSchema, *, skip: bool) -> Iterator[Chunk]:
        """Reads rows `first` to `stop` (None: the end) of a piece.

        Args:
            piece: its number. first, stop: places in it.
            wanted: columns to yield.
            skip: leave malformed rows out and count them.
        """
        raise NotImplementedError


class ColumnarFile(RowFile):
    """A Parquet or ORC file."""

    def __init__(self, path: Path, kind: str, schema: RowSchema) -> None:
        self.path = path
        self._open = ParquetRows if kind == "parquet" else OrcRows
        opened = self._open(path, schema)
        self._metadata = opened.metadata
        self.schema, self._rows, self.pieces = opened.schema, opened.pieces, len(opened.pieces)
        self._starts = np.cumsum([0, *opened.pieces])

    def rows(self, piece: int) -> int:
        return self._rows[piece]

    def chunks(self, piece: int, first: int, stop: int | None, wanted: RowSchema, *, skip: bool) -> Iterator[Chunk]:
        opened = self._open(
            self.path, wanted, metadata=self._metadata
        )  # for each piece anew, since threads must not share one
        stop = self._rows[piece] if stop is None else stop
        place = 0
        for batch in opened.batches(piece, DECODED):
            part = batch.slice(max(first - place, 0), max(min(stop, place + len(batch)) - max(first, place), 0))
            start = max(first, place)
            place += len(batch)
            if len(part):
                faults = Faults()
                row = int(self._starts[piece]) + start
                made = conform(part, wanted, row, source=str(self.path), faults=faults if skip else None)
                yield Chunk(start, made, faults)
            if place >= stop:
                return


class TextFile(RowFile):
    """A text in either format, plain or gzipped."""

    def __init__(self, path: Path, kind: str, schema: RowSchema, *, gzipped: bool) -> None:
        self.path, self._gzipped = path, gzipped
        with self._bytes() as file:
            head = file.read(HEAD)
        self.empty = not head
        self._format: TextFormat = text_format(head, schema, kind)
        self.schema = self._format.schema
        self._size = path.stat().st_size
        self.pieces = (1 if gzipped else -(-self._size // STRETCH)) if head else 0

    def rows(self, piece: int) -> int:
        return sum(len(lines_of(text)) for _, text in self._blocks(piece, Faults()))

    def chunks(self, piece: int, first: int, stop: int | None, wanted: RowSchema, *, skip: bool) -> Iterator[Chunk]:
        place = 0
        long = Faults() if skip else None
        try:
            for line, text in self._blocks(piece, long):
                lines = lines_of(text)
                start, place = place, place + len(lines)
                if place <= first:
                    continue
                begin, end = max(first - start, 0), len(lines) if stop is None else min(stop - start, len(lines))
                if begin or end < len(lines):
                    line += int(lines.numbers[begin])
                    text = text[lines.starts[begin] : lines.ends[end - 1]]
                yield self._chunk(start + begin, line, text, wanted, piece, long)
                if stop is not None and place >= stop:
                    return
            if long is not None and long.count:
                yield Chunk(place, wanted.empty(), long)
        except MalformedRow as fault:
            raise self._placed(fault, piece) from None

    def _chunk(self, first: int, line: int, text: bytes, wanted: RowSchema, piece: int, long: Faults | None) -> Chunk:
        faults = Faults()
        batch = self._format.parse(
            text, self.schema, line, source=str(self.path), faults=None if long is None else faults
        )
        faults.first = [self._placed(fault, piece) for fault in faults.first]
        return Chunk(first, batch.select(wanted.names) if wanted != self.schema else batch, faults)

    def _placed(self, fault: MalformedRow, piece: int) -> MalformedRow:
        """A fault with its line in the file instead of the one in its piece, where counting began with 2 (see `_blocks`)."""
        if piece == 0:
            return fault
        before, left = 0, piece * STRETCH
        with self._bytes() as file:
            while left > 0 and (block := file.read(min(left, BLOCK))):
                before, left = before + block.count(b"\n"), left - len(block)
            file.seek(piece * STRETCH - 1)
            before += file.read(1) != b"\n"  # the rest of a line belongs to the piece before
        return MalformedRow(fault.source, fault.problem, line=(fault.line or 0) - 1 + before)

    def _blocks(self, piece: int, faults: Faults | None) -> Iterator[tuple[int, bytes]]:
        """(Number of the first line, whole lines) of a piece, in blocks; numbers begin with 1, in later pieces with 2."""
        if self._gzipped:
            blocks = LineBlocks(str(self.path), faults)
            with self._bytes() as file:
                while part := file.read(BLOCK):
                    yield from blocks.feed(part)
                yield from blocks.finish()
            return
        with self._bytes() as file:
            text, whole = _lines_starting_within(file, piece * STRETCH, (piece + 1) * STRETCH)
        first = 1 if piece == 0 else 2
        if not whole:
            line = first + text.count(b"\n")
            report(faults, MalformedRow(str(self.path), f"longer than {LONGEST} bytes", line=line))
        if text:
            yield first, text

    @contextmanager
    def _bytes(self) -> Iterator[BinaryIO]:
        try:
            with gzip.open(self.path) if self._gzipped else self.path.open("rb") as file:
                yield cast(BinaryIO, file)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: cannot be read: {error}; fetch or copy it again") from error


def _lines_starting_within(file: BinaryIO, start: int, stop: int) -> tuple[bytes, bool]:
    """The lines whose first byte lies in [start, stop), and whether the last one is whole: if it is too long, it is left out."""
    file.seek(max(start - 1, 0))
    text = file.read(stop - max(start - 1, 0))
    if start:
        begin = text.find(b"\n") + 1
        if not begin or begin == len(text):
            return b"", True  # all of it belongs to a line that starts before, or the next line starts behind
        text = text[begin:]
    if text.endswith(b"\n"):
        return text, True
    rest = file.readline(LONGEST + 1)
    if len(rest) > LONGEST:
        return text[: text.rfind(b"\n") + 1], False
    return text + rest, True


def open_files(
    paths: str | Path | Iterable[str | Path], schema: RowSchema, format: str = "auto"
) -> tuple[list[RowFile], RowSchema]:
    """Opens every file, in the order of the paths; those of a folder by name.

    Args:
        paths: files, folders (with the files below them; names that begin with `.` or `_` are left out) or patterns.
        schema: of the rows with their label.
        format: one of `FORMATS`.

    Returns:
        The files, and the schema as they have it.

    Raises:
        DataUnavailable: no such file. DataError: an empty folder, a file that is not whole, or files that differ.
    """
    if format not in FORMATS:
        raise DataError(f"unknown format {format!r}; known are {', '.join(FORMATS)}", field="format")
    files = [_open(path, schema, format) for path in find_files(paths)]
    told = [file for file in files if not (isinstance(file, TextFile) and file.empty)] or files
    for file in told[1:]:
        if file.schema != told[0].schema:
            has, lacks = (told[0], file) if told[0].schema.label else (file, told[0])
            raise DataError(f"{lacks.path}: its rows have no label, those of {has.path} have one; read them separately")
    return files, told[0].schema


def find_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files that the paths stand for."""
    found: list[Path] = []
    for given in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file() and not _hidden(one.relative_to(path)))
            if not inside:
                raise DataError(f"{path}: is an empty folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            matching = sorted(Path(one) for one in glob.glob(str(path)) if Path(one).is_file())  # noqa: PTH207 - absolute
            if not matching:
                raise DataUnavailable(f"{path}: no such file or folder")
            found += matching
    if not found:
        raise DataError("no files were given to read rows from")
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _open(path: Path, schema: RowSchema, format: str) -> RowFile:
    with path.open("rb") as file:
        head = file.read(8)
    if format in ("auto", "parquet", "orc"):
        kind = columnar_format(head) or format
        if kind in ("parquet", "orc"):
            return ColumnarFile(path, kind, schema)
    return TextFile(path, format, schema, gzipped=head.startswith(GZIP))
