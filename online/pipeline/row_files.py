"""The rows of an uploaded file as record batches, whatever its format: Criteo TSV or slot text, gzipped or not, or Parquet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from data_exchange_center.errors import TooLarge
from data_exchange_center.rows.columnar import parquet_batches
from data_exchange_center.rows.parser import RowParser, columnar_format
from data_exchange_center.rows.schema import RowSchema

READ = 1 << 16  # bytes; what they unfold to is parsed before the clock is looked at again


def batches_of(file: BinaryIO, schema: RowSchema, name: str, most_seconds: float) -> Iterator[pa.RecordBatch]:
    """Reads a file in bounded memory.

    Args:
        file: open at its start; Parquet is read out of order, so it must be seekable.
        schema: of a row, label first; files without labels are read too.
        name: for messages.
        most_seconds: that reading may take, the caller's work on the batches included.

    Raises:
        DataError: a malformed row, with its line (text) or row (Parquet), or no such file at all.
        TooLarge: the time is over.
    """
    deadline = time.monotonic() + most_seconds
    head = file.read(8)
    file.seek(0)
    batches = (
        parquet_batches(file, schema, source=name)
        if columnar_format(head) == "parquet"
        else _text(file, schema, name, deadline)
    )
    for batch in batches:
        _look_at_the_clock(deadline)
        yield batch


def _text(file: BinaryIO, schema: RowSchema, name: str, deadline: float) -> Iterator[pa.RecordBatch]:
    parser = RowParser(schema, source=name)
    while piece := file.read(READ):
        yield from parser.feed(piece)
        _look_at_the_clock(deadline)
    yield from parser.finish()


def _look_at_the_clock(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TooLarge("the file takes too long to score (setting serve.upload_seconds); send it in parts")
