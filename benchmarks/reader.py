"""Rows a second that the reader gives, against pyarrow's own scan of the same columns of the same files, in the same run.

    python benchmarks/reader.py                        generated rows
    python benchmarks/reader.py --data criteo-orc      files of one's own, repeated to the same size

ORC and Parquet hold lists of one element or none, as logs are exported; the reader gives checked, typed scalars in batches of
4,096, the scan gives what is in the files. Both may use both cores; processor seconds are given too. For TSV and slot text the
peer is pandas.read_csv, which for slot text only splits (it cannot tell slots apart). The readers take turns and the median counts.
Memory: what the process holds more at the end of a third pass over the rows than at the end of the second.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.orc
import pyarrow.parquet as pq

from benchmarks.common import report
from data_exchange_center.rows.schema import criteo_schema
from offline.datasets.criteo_synthetic import BLOCK, SyntheticClicks
from offline.datasets.row_writers import row_writer
from offline.reading.reader import RowReader

log = logging.getLogger("marquee.benchmark")
SCHEMA = criteo_schema()
FILES = 8


@dataclass
class Timed:
    """Rows that were read, and the wall and processor seconds that it took."""

    rows: int
    seconds: float
    cpu_seconds: float


def timed(read: Callable[[], int]) -> Timed:
    """Runs it once."""
    started, processor = time.perf_counter(), time.process_time()
    rows = read()
    return Timed(rows, time.perf_counter() - started, time.process_time() - processor)


def in_turns(ours: Callable[[], int], peer: Callable[[], int], repeats: int) -> dict[str, Timed]:
    """The median of each, after one run that warms the page cache."""
    readers = {"ours": ours, "peer": peer}
    runs: dict[str, list[Timed]] = {name: [] for name in readers}
    for turn in range(repeats + 1):
        for name, read in readers.items():
            run = timed(read)
            if turn:
                runs[name].append(run)
    result = {}
    for name, done in runs.items():
        wall = statistics.median(run.seconds for run in done)
        result[name] = Timed(done[0].rows, wall, statistics.median(run.cpu_seconds for run in done))
        log.info(
            "  %-24s %9.0f rows/s, %9.0f rows/CPU s", name, done[0].rows / wall, done[0].rows / result[name].cpu_seconds
        )
    return result


def source_batches(rows: int, data: Path | None) -> Iterator[pa.RecordBatch]:
    """Rows of the Criteo schema: generated, or of files, repeated until there are enough."""
    if data is None:
        for block in SyntheticClicks(0, 0.03).blocks(rows):
            yield block.rows
        return
    left = rows
    while left > 0:
        for batch in RowReader(data, SCHEMA, batch_size=BLOCK):
            yield batch.slice(0, left)
            left -= min(len(batch), left)


def as_lists(batch: pa.RecordBatch) -> pa.Table:
    """A list in each column, empty where missing; numbers as double."""
    arrays = []
    for column in batch.columns:
        there = column.is_valid()
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), pa.compute.cumulative_sum(there.cast(pa.int64()))])
        elements = column.drop_null()
        wide = elements.cast(pa.float64()) if pa.types.is_floating(elements.type) else elements
        arrays.append(pa.ListArray.from_arrays(offsets.cast(pa.int32()), wide))
    return pa.table(arrays, names=batch.schema.names)


def write_files(folder: Path, rows: int, text_rows: int, data: Path | None) -> None:
    """The same rows as `parquet/`, `orc/`, `tsv/` and `slot/` (fewer of the texts), 8 files each."""
    for name in ("parquet", "orc", "tsv", "slot"):
        (folder / name).mkdir()
    each = -(-rows // FILES)
    table = pa.Table.from_batches(list(source_batches(rows, data)))
    for part in range(FILES):
        batch = table.slice(part * each, each).combine_chunks().to_batches()[0]
        lists = as_lists(batch)
        pq.write_table(lists, folder / "parquet" / f"{part}.parquet", row_group_size=BLOCK)
        pyarrow.orc.write_table(lists, folder / "orc" / f"{part}.orc")
        for form in ("tsv", "slot"):
            with row_writer(folder / form / f"{part}.txt", SCHEMA, form) as write:
                write(batch.slice(0, text_rows // FILES))


def ours(folder: Path) -> int:
    """Our reader, all columns."""
    return sum(len(batch) for batch in RowReader(folder, SCHEMA, batch_size=4096))


def arrow(folder: Path, form: str) -> int:
    """Arrow's dataset scan of the same columns, as they are in the files."""
    scanner = ds.dataset(folder, format=form).scanner(
        columns=SCHEMA.names, batch_size=4096 if form == "parquet" else 1 << 17
    )
    return sum(len(batch) for batch in scanner.to_batches())


def pandas_tsv(folder: Path) -> int:
    """pandas.read_csv with Criteo's types, categories as strings."""
    types = {name: "float32" if name[0] != "c" else str for name in SCHEMA.names}
    return sum(
        len(pd.read_csv(path, sep="\t", header=None, names=SCHEMA.names, dtype=types))
        for path in sorted(folder.iterdir())
    )


def pandas_slot(folder: Path) -> int:
    """pandas.read_csv splitting the tokens only."""
    return sum(
        len(pd.read_csv(path, sep="\t", header=None, names=range(40), dtype=str)) for path in sorted(folder.iterdir())
    )


def memory_growth(folder: Path) -> float:
    """MiB that the third pass over the files leaves beyond the second; the first ones fill the allocator's pools."""
    process = psutil.Process()
    held = []
    for _ in range(3):
        ours(folder)
        pa.default_memory_pool().release_unused()
        held.append(process.memory_info().rss)
    return (held[2] - held[1]) / 2**20


def peak_mib(folder: Path) -> float:
    """MiB that Arrow holds at most while the reader runs, above what it held before."""
    before = pa.total_allocated_bytes()
    peak = before
    for _ in RowReader(folder, SCHEMA, batch_size=4096):
        peak = max(peak, pa.total_allocated_bytes())
    return (peak - before) / 2**20


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000, help="in the ORC and Parquet files")
    options.add_argument("--text-rows", type=int, default=250_000, help="in the TSV and slot text files")
    options.add_argument("--data", type=Path, help="files of the Criteo schema to repeat instead of generated rows")
    options.add_argument("--repeats", type=int, default=3, help="turns of each; the median counts")
    given = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory(prefix="marquee-reader-") as name:
        folder = Path(name)
        write_files(folder, given.rows, given.text_rows, given.data)
        found: dict[str, dict[str, Timed]] = {}
        for form in ("orc", "parquet"):
            log.info("%s", form)
            found[form] = in_turns(partial(ours, folder / form), partial(arrow, folder / form, form), given.repeats)
        for form, peer in (("tsv", pandas_tsv), ("slot", pandas_slot)):
            log.info("%s", form)
            turns = max(given.repeats // 2, 1)
            found[form] = in_turns(partial(ours, folder / form), partial(peer, folder / form), turns)
        memory = {
            f"{form}_{what}_mib": round(measure(folder / form), 1)
            for form in ("orc", "parquet", "tsv")
            for what, measure in (("growth", memory_growth), ("peak", peak_mib))
        }
    for form, pair in found.items():
        if len({run.rows for run in pair.values()}) != 1:
            raise SystemExit(f"{form}: ours read {pair['ours'].rows} rows, the peer {pair['peer'].rows}")
    report(
        "reader",
        {**_rates(found, "ours"), **memory},
        _rates(found, "peer"),
        {
            **{form: round(pair["peer"].seconds / pair["ours"].seconds, 2) for form, pair in found.items()},
            **{
                f"{form}_cpu": round(pair["peer"].cpu_seconds / pair["ours"].cpu_seconds, 2)
                for form, pair in found.items()
            },
        },
        rows=given.rows,
        text_rows=given.text_rows,
        repeats=given.repeats,
        peers={
            "orc": "pyarrow.dataset",
            "parquet": "pyarrow.dataset",
            "tsv": "pandas.read_csv",
            "slot": "pandas.read_csv",
        },
    )


def _rates(found: dict[str, dict[str, Timed]], whose: str) -> dict[str, float]:
    rates: dict[str, float] = {}
    for form, pair in found.items():
        rates[f"{form}_rows_per_s"] = round(pair[whose].rows / pair[whose].seconds)
        rates[f"{form}_rows_per_cpu_s"] = round(pair[whose].rows / pair[whose].cpu_seconds)
    return rates


if __name__ == "__main__":
    main()
