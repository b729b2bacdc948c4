"""Where the daily job's rows come from when nobody names a file: the archive, or a scene that is generated."""

from __future__ import annotations

from datetime import date as Date
from pathlib import Path

from data_exchange_center.errors import DataUnavailable
from data_exchange_center.settings import Settings
from offline.datasets.repair_shop_files import GENERATED, day_file, history_file
from offline.incremental.days import DayArchive


def history_of(settings: Settings, given: Path | None) -> Path:
    """File of the rows before the first day.

    Raises:
        DataUnavailable: none is given, and the dataset is not generated.
    """
    if given is not None:
        return given
    if settings.dataset_name != GENERATED:
        raise DataUnavailable(f"dataset {settings.dataset_name}: give its rows by --history FILE")
    return history_file(settings)


def day_of(settings: Settings, archive: DayArchive, date: str, given: Path | None) -> Path | None:
    """File of a day's rows; None when they lie in the archive.

    Raises:
        DataUnavailable: none is given, none lies there, and the dataset is not generated.
    """
    if given is not None or archive.path(date).exists():
        return given
    if settings.dataset_name != GENERATED:
        raise DataUnavailable(f"{date}: put its rows into {archive.path(date)}, or give them by --rows FILE")
    return day_file(settings, Date.fromisoformat(date))
