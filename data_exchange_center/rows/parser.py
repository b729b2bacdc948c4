"""Text that arrives in pieces, of either format, plain or gzipped, to record batches in bounded memory.

    parser = RowParser(criteo_schema(), source="upload")
    for piece in pieces:
        for batch in parser.feed(piece):
            ...
    for batch in parser.finish():
        ...

Format and label are told from the first block: rows whose first token is `slot:value` are slot text, others are
tab-separated; a label is there when the first row that can be counted has one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from data_exchange_center.errors import DataError
from data_exchange_center.rows.criteo_tsv import has_tsv_label, parse_tsv, tsv_fits
from data_exchange_center.rows.faults import Faults
from data_exchange_center.rows.lines import BLOCK, BOM, LineBlocks, lines_of
from data_exchange_center.rows.schema import RowSchema
from data_exchange_center.rows.slot_text import has_slot_label, parse_slot_text

GZIP, PARQUET, ORC = b"\x1f\x8b", b"PAR1", b"ORC"
LOOKED_AT = 100  # lines from which format and label are told


class Parse(Protocol):
    """What `parse_tsv` and `parse_slot_text` are."""

    def __call__(
        self, chunk: bytes, schema: RowSchema, first_line: int = 1, *, source: str = "", faults: Faults | None = None
    ) -> pa.RecordBatch: ...


@dataclass(frozen=True)
class TextFormat:
    """A text format, told from its first lines.

    Attributes:
        name: `tsv` or `slot`.
        schema: of its rows: with the label or without.
    """

    name: Literal["tsv", "slot"]
    schema: RowSchema

    @property
    def parse(self) -> Parse:
        """Its parser."""
        return parse_tsv if self.name == "tsv" else parse_slot_text


def columnar_format(head: bytes) -> Literal["parquet", "orc"] | None:
    """Which columnar format a file that begins with these bytes has, if any."""
    if head.startswith(PARQUET):
        return "parquet"
    return "orc" if head.startswith(ORC) else None


def text_format(head: bytes, schema: RowSchema, name: str = "auto") -> TextFormat:
    """The format of a text and whether it has labels, from its first lines.

    Args:
        head: the beginning of the text; a last line that is cut does no harm unless it is the only one.
        schema: of the rows with their label.
        name: tsv or slot where it is known.
    """
    text = head.removeprefix(BOM)
    lines = lines_of(text)
    first = [text[start:end] for start, end in zip(lines.starts[:LOOKED_AT], lines.ends[:LOOKED_AT], strict=True)]
    if name == "auto":
        tokens = first[0].replace(b" ", b"\t").lstrip(b"\t").partition(b"\t")[0] if first else b""
        name = "slot" if b":" in tokens else "tsv"
    if name == "slot":
        labelled = any(has_slot_label(line, schema) for line in first)
    else:
        fitting = [line for line in first if tsv_fits(line, schema)]
        labelled = has_tsv_label(fitting[0], schema) if fitting else schema.label is not None
    return TextFormat("slot" if name == "slot" else "tsv", schema if labelled or not first else schema.unlabelled)


class RowParser:
    """Parses rows as their bytes arrive.

    Args:
        schema: of the rows with their label, if the label can be there.
        format: tsv, slot, or auto.
        source: name for messages.
        faults: counts malformed rows, which are left out then; None: the first one is an error.
        block: bytes of text that are parsed at once; memory is a small multiple of it.

    Attributes:
        text: what was told from the first rows; None before them.
        rows: parsed so far.
    """

    def __init__(
        self,
        schema: RowSchema,
        *,
        format: str = "auto",
        source: str = "",
        faults: Faults | None = None,
        block: int = BLOCK,
    ) -> None:
        self.text: TextFormat | None = None
        self.rows = 0
        self._schema, self._format, self._source, self._faults = schema, format, source, faults
        self._blocks = LineBlocks(source, faults, block)
        self._head = b""
        self._plain: Gunzip | None = None
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[pa.RecordBatch]:
        """Takes the next bytes and yields the batches that they complete.

        Raises:
            MalformedRow: a row that cannot be read. DataError: bytes that are not text at all.
        """
        if not self._begun:
            self._head += piece
            if len(self._head) < len(PARQUET):
                return
            piece = self._begin()
        yield from self._pass_on(piece)

    def finish(self) -> Iterator[pa.RecordBatch]:
        """Yields the rest; raises as `feed` does, also when a gzipped text breaks off."""
        if not self._begun:
            yield from self._pass_on(self._begin())
        if self._plain is not None:
            self._plain.finish()
        yield from self._parsed(self._blocks.finish())

    def _begin(self) -> bytes:
        """Looks at the first bytes; gives them back to be parsed."""
        self._begun = True
        head, self._head = self._head, b""
        if kind := columnar_format(head):
            raise DataError(f"{self._source or 'the rows'}: is a {kind} file, where text is expected")
        if head.startswith(GZIP):
            self._plain = Gunzip(self._source)
        return head

    def _pass_on(self, piece: bytes) -> Iterator[pa.RecordBatch]:
        for plain in [piece] if self._plain is None else self._plain.feed(piece):
            yield from self._parsed(self._blocks.feed(plain))

    def _parsed(self, blocks: Iterator[tuple[int, bytes]]) -> Iterator[pa.RecordBatch]:
        for line, text in blocks:
            if self.text is None:
                self.text = text_format(text, self._schema, self._format)
            batch = self.text.parse(text, self.text.schema, line, source=self._source, faults=self._faults)
            self.rows += len(batch)
            if len(batch):
                yield batch


class Gunzip:
    """Decompresses a gzip stream as it arrives, any number of members, at most `BLOCK` bytes at once."""

    def __init__(self, source: str = "") -> None:
        self._source = source
        self._member = zlib.decompressobj(wbits=31)
        self._fresh = True  # nothing of this member has arrived

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yields what the next bytes decompress to."""
        while piece:
            if self._member.eof:
                piece = piece.lstrip(b"\0")  # padding behind a member, as gzip allows
                if not piece:
                    return
                self._member, self._fresh = zlib.decompressobj(wbits=31), True
            try:
                plain = self._member.decompress(piece, BLOCK)
            except zlib.error as error:
                raise DataError(f"{self._source}: damaged gzip data: {error}; fetch or copy it again") from error
            self._fresh = False
            piece = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if plain:
                yield plain
            elif not self._member.eof and not piece:
                return

    def finish(self) -> None:
        """Raises `DataError` when the stream broke off."""
        if not self._member.eof:
            raise DataError(f"{self._source}: gzip data breaks off; it is truncated. Fetch or copy it again")
