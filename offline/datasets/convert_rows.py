"""Rows of the text formats (or ORC) to Parquet: read many times faster, sharded and shuffled finely, a third of the size.

    python offline/datasets/convert_rows.py train.txt.gz --out clicks --parts 8

Each output file appears under its name only when the whole folder is written.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from tqdm import tqdm

from data_exchange_center.errors import SettingsError
from data_exchange_center.rows.schema import RowSchema, criteo_schema
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import atomic_folder
from offline.datasets.row_writers import ROW_GROUP, SUFFIXES, RowFormat, row_writer
from offline.reading.files import FORMATS
from offline.reading.reader import RowReader

log = logging.getLogger("marquee")


def convert_rows(
    paths: str | Path | Iterable[str | Path],
    folder: Path,
    *,
    schema: RowSchema | None = None,
    format: str = "auto",
    to: RowFormat = "parquet",
    parts: int = 8,
    on_error: Literal["raise", "skip"] = "raise",
) -> dict[str, Any]:
    """Writes the rows, in their order, into `part-<n>` files of about equal size.

    Args:
        paths, format, on_error: see `RowReader`.
        folder: must not exist.
        schema: of the rows; by default Criteo's.
        to: the format to write.
        parts: files to write; fewer when there are fewer rows.

    Returns:
        rows, skipped, files, and the folder.

    Raises:
        DataError: a malformed row (with `on_error="raise"`), or a folder that exists.
    """
    if parts < 1:
        raise SettingsError(f"convert: at least one part is needed, not {parts}", field="parts")
    reader = RowReader(paths, schema or criteo_schema(), batch_size=ROW_GROUP, format=format, on_error=on_error)
    each = max(-(-reader.rows // parts), 1)
    written = 0
    with (
        atomic_folder(folder) as temporary,
        tqdm(total=reader.rows, desc="converting", unit="row", unit_scale=True) as bar,
    ):
        with ExitStack() as open_part:
            for piece in _cut(reader, each):
                if written % each == 0:
                    open_part.close()
                    path = temporary / f"part-{written // each:05d}{SUFFIXES[to]}"
                    write = open_part.enter_context(row_writer(path, reader.schema, to))
                write(piece)
                written += len(piece)
                bar.update(len(piece))
        files = len(list(temporary.iterdir()))
    for fault in reader.faults.first:
        log.warning("  skipped %s", fault)
    return {"rows": written, "skipped": reader.skipped, "files": files, "folder": str(folder)}


def _cut(reader: RowReader, each: int) -> Iterator[pa.RecordBatch]:
    """The reader's rows in pieces that do not cross a multiple of `each`."""
    place = 0
    for batch in reader:
        while len(batch):
            piece = batch.slice(0, each - place % each)
            batch = batch.slice(len(piece))
            place += len(piece)
            yield piece


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return convert_rows(
        arguments.paths,
        arguments.out,
        schema=criteo_schema(lists=arguments.lists),
        format=arguments.format,
        to=arguments.to,
        parts=arguments.parts,
        on_error="skip" if arguments.skip else "raise",
    )


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser(__doc__ or "")
    options.add_argument("paths", nargs="+", help="files, folders or patterns")
    options.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    options.add_argument("--format", choices=FORMATS, default="auto", help="of the files")
    options.add_argument("--to", choices=list(SUFFIXES), default="parquet", help="format to write")
    options.add_argument("--parts", type=int, default=8, help="files to write")
    options.add_argument("--lists", action="store_true", help="categories are lists: keep slots given several times")
    options.add_argument("--skip", action="store_true", help="leave malformed rows out and count them")
    run_step("convert_rows", options, _step, argv)


if __name__ == "__main__":
    main()
