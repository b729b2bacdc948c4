"""Rows written in every format by plain code of their own, for tests to read back."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
from hypothesis import strategies as st

from data_exchange_center.rows.schema import RowSchema, criteo_schema

Row = dict[str, Any]
SCHEMA = criteo_schema()
FORMATS = ("tsv", "tsv.gz", "slot", "slot.gz", "parquet", "parquet-lists", "orc")

_numbers = st.none() | st.integers(-3, 2**24).map(float) | st.floats(width=32, allow_nan=False, allow_infinity=False)
_ids = st.none() | st.integers(0, 2**32 - 1) | st.integers(-(2**63), 2**63 - 1)


@st.composite
def rows(draw: st.DrawFn, most: int = 40) -> list[Row]:
    """Rows of the Criteo schema: a few drawn columns, the others filled by the row's number."""
    count = draw(st.integers(0, most))
    made = []
    for number in range(count):
        row: Row = {"label": float(draw(st.integers(0, 1)))}
        row |= {f"i{place}": float(number) if place > 3 else draw(_numbers) for place in range(1, 14)}
        row |= {f"c{place}": number * place if place > 3 else draw(_ids) for place in range(1, 27)}
        made.append(row)
    return made


def numbered(count: int) -> list[Row]:
    """Rows that can be told apart: `c1` is the row's number."""
    return [
        {
            "label": float(number % 3 == 0),
            **{f"i{place}": None if (number + place) % 5 == 0 else float(number % 1000) for place in range(1, 14)},
            **{f"c{place}": number if place == 1 else (number * place) % 97 or None for place in range(1, 27)},
        }
        for number in range(count)
    ]


def tsv(rows: Sequence[Row], *, labelled: bool = True) -> bytes:
    """Criteo's tab-separated form; ids in hexadecimal."""
    return b"".join(b"\t".join(_tsv_fields(row, labelled)) + b"\n" for row in rows)


def _tsv_fields(row: Row, labelled: bool) -> list[bytes]:
    fields = [b"%d" % row["label"]] if labelled else []
    fields += [b"" if (value := row[f"i{place}"]) is None else repr(value).encode() for place in range(1, 14)]
    ids = [row[f"c{place}"] for place in range(1, 27)]
    return fields + [b"" if value is None else b"%08x" % (value % 2**64) for value in ids]


def slot_text(rows: Sequence[Row], *, labelled: bool = True) -> bytes:
    """Slot text; missing ids are left out, missing numbers are empty."""
    lines = []
    for row in rows:
        tokens = [f"click:{row['label']:.0f}"] if labelled else []
        for place in range(1, 14):
            value = row[f"i{place}"]
            tokens.append("dense_feature:" if value is None else f"dense_feature:{value!r}")
        tokens += [f"{place}:{row[f'c{place}']}" for place in range(1, 27) if row[f"c{place}"] is not None]
        lines.append("\t".join(tokens) + "\n")
    return "".join(lines).encode()


def table(rows: Sequence[Row], schema: RowSchema = SCHEMA) -> pa.Table:
    """The rows as the readers are to give them."""
    return pa.Table.from_pylist(list(rows), schema=schema.arrow)


def list_table(rows: Sequence[Row]) -> pa.Table:
    """The rows with a list in each column, empty where missing."""
    fields = [
        pa.field(name, pa.list_(pa.int64() if name.startswith("c") else pa.float64())) for name in sorted(SCHEMA.names)
    ]
    lists = [{name: [] if value is None else [value] for name, value in row.items()} for row in rows]
    return pa.Table.from_pylist(lists, schema=pa.schema(fields))


def write(path: Path, rows: Sequence[Row], form: str, *, labelled: bool = True, group: int = 40) -> Path:
    """Writes one file in one of `FORMATS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = form.removesuffix(".gz")
    if kind in ("tsv", "slot"):
        text = tsv(rows, labelled=labelled) if kind == "tsv" else slot_text(rows, labelled=labelled)
        path.write_bytes(gzip.compress(text) if form.endswith(".gz") else text)
        return path
    made = table(rows) if form == "parquet" else list_table(rows)
    if not labelled:
        made = made.drop_columns(["label"])
    if form == "orc":
        pyarrow.orc.write_table(made, path, stripe_size=1 << 16, batch_size=64)
    else:
        pq.write_table(made, path, row_group_size=group)
    return path
