"""Where the daily job's rows come from when nobody names a file: the archive, or a scene that is generated."""

from __future__ import annotations

from datetime import date as Date
from pathlib import Path

from data_exchange_center.errors import DataUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, write_table
from offline.datasets.repair_shop import FIRST_DAY, RepairShopConfig, RepairShopLog
from offline.incremental.days import DayArchive

GENERATED = "repair_shop"


def generated_log(settings: Settings) -> RepairShopLog:
    """The generated log of the settings' seed."""
    return RepairShopLog(RepairShopConfig(seed=settings.data.synthetic_seed))


def history_of(settings: Settings, given: Path | None) -> Path:
    """File of the rows before the first day.

    Raises:
        DataUnavailable: none is given, and the dataset is not generated.
    """
    if given is not None:
        return given
    if settings.dataset_name != GENERATED:
        raise DataUnavailable(f"dataset {settings.dataset_name}: give its rows by --history FILE")
    path = Workspace(settings).raw / f"history-{settings.data.synthetic_seed}.parquet"
    if not path.exists():
        write_table(path, generated_log(settings).history())
    return path


def day_of(settings: Settings, archive: DayArchive, date: str, given: Path | None) -> Path | None:
    """File of a day's rows; None when they lie in the archive.

    Raises:
        DataUnavailable: none is given, none lies there, and the dataset is not generated.
    """
    if given is not None or archive.path(date).exists():
        return given
    if settings.dataset_name != GENERATED:
        raise DataUnavailable(f"{date}: put its rows into {archive.path(date)}, or give them by --rows FILE")
    path = Workspace(settings).raw / "days" / f"{date}-{settings.data.synthetic_seed}.parquet"
    if not path.exists():
        write_table(path, generated_log(settings).day((Date.fromisoformat(date) - FIRST_DAY).days))
    return path
