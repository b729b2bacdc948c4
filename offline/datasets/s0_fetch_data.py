"""Raw data, fetched and checked: every row parsed, the tables validated, everything strange counted. Or removed, with --clean."""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Mapping
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace
from offline.datasets.criteo import CLICK_DATASETS, check_clicks
from offline.datasets.registry import load_dataset
from offline.datasets.repair_shop_files import GENERATED, write_repair_shop

log = logging.getLogger("marquee")


def fetch_data(settings: Settings) -> dict[str, Any]:
    """Fetches the dataset when there is no copy, reads all of it and keeps what is made of it: a log's canonical tables."""
    if settings.data.dataset in CLICK_DATASETS:
        return check_clicks(settings)
    if settings.data.dataset == GENERATED:
        return write_repair_shop(settings)
    info = load_dataset(settings)
    for finding in info.findings:
        log.warning("  %s", finding)
    return {
        "dataset": info.name,
        "source": info.source,
        "labels": info.labels,
        **{
            name: getattr(info, name)
            for name in ("users", "items", "interactions", "rows_read", "dropped", "positive_rate")
        },
        "findings": [str(finding) for finding in info.findings],
        "tables": str(Workspace(settings).tables),
    }


def clean_data(settings: Settings) -> dict[str, Any]:
    """Removes what was fetched of the chosen dataset and what was made from it; releases and `data.source` stay."""
    workspace = Workspace(settings)
    removed = [folder for folder in (workspace.raw, workspace.offline) if folder.exists()]
    for folder in removed:
        shutil.rmtree(folder)
    return {"dataset": workspace.dataset, "removed": [str(folder) for folder in removed]}


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return clean_data(settings) if arguments.clean else fetch_data(settings)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser("Fetch the raw data unless it is there, and check all of it.")
    options.add_argument("--clean", action="store_true", help="remove what was fetched or made of this dataset instead")
    run_step("s0_fetch_data", options, _step, argv)


if __name__ == "__main__":
    main()
