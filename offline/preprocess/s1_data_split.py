"""Raw log -> canonical tables -> rows marked train, test and online. The first step of the README's path."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import DatasetInfo
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, read_table, write_json, write_table
from offline.datasets.registry import load_dataset
from offline.preprocess.split import split_interactions

log = logging.getLogger("marquee")


def split_data(settings: Settings, *, again: bool = False) -> dict[str, Any]:
    """Makes the canonical tables and `split/interactions.parquet`; see offline/preprocess/split.py for the protocols.

    Args:
        settings: dataset, store and split.
        again: read the raw data even when its tables are up to date.

    Returns:
        What was read and written: rows and positive rate per split, users without train rows, findings in the raw data.
    """
    workspace = Workspace(settings)
    info = load_dataset(settings, again=again)
    for finding in info.findings:
        log.warning("  %s", finding)
    table = split_interactions(read_table(workspace.tables / "interactions.parquet"), settings.split)
    written = workspace.split / "interactions.parquet"
    write_table(written, table)
    summary = {
        "dataset": info.name,
        "labels": info.labels,
        "users": info.users,
        "items": info.items,
        "interactions": info.interactions,
        "rows_read": info.rows_read,
        "dropped": info.dropped,
        "findings": [str(finding) for finding in info.findings],
        "protocol": settings.split.protocol,
        **_counts(table, info),
        "fingerprint": info.fingerprint,
    }
    write_json(workspace.split / "split.json", summary)
    return {**summary, "written": str(written)}


def _counts(table: pa.Table, info: DatasetInfo) -> dict[str, Any]:
    narrow = table.select([c.USER_ID, c.LABEL])
    parts = {part: narrow.filter(pc.equal(table[c.SPLIT], part)) for part in (c.TRAIN, c.TEST, c.ONLINE)}
    trained = pc.count_distinct(parts[c.TRAIN][c.USER_ID]).as_py()
    return {
        "rows": {part: rows.num_rows for part, rows in parts.items()},
        "early": pc.sum(table["early"]).as_py(),
        "positives": {part: pc.sum(pc.cast(rows[c.LABEL], pa.int64())).as_py() or 0 for part, rows in parts.items()},
        "positive_rate": {
            part: round(pc.mean(rows[c.LABEL]).as_py(), 4) if rows.num_rows else None for part, rows in parts.items()
        },
        "users_in": {part: pc.count_distinct(rows[c.USER_ID]).as_py() for part, rows in parts.items()},
        "users_without_train": info.users - trained,
    }


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return split_data(settings, again=arguments.again)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser("Read the raw log, write the canonical tables and split the interactions by time.")
    options.add_argument("--again", action="store_true", help="read the raw data even when its tables are up to date")
    run_step("s1_data_split", options, _step, argv)


if __name__ == "__main__":
    main()
