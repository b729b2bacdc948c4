"""Where the daily job's rows come from when nobody names a file: the archive, a generated scene, or the dataset's own log."""

from __future__ import annotations

from datetime import date as Date
from pathlib import Path

from data_exchange_center.errors import DataUnavailable
from data_exchange_center.settings import Settings
from offline.datasets.repair_shop_files import GENERATED, day_file, history_file
from offline.incremental.chain_log import dataset_rows, is_chain
from offline.incremental.days import DayArchive, checked_date


def history_of(settings: Settings, given: Path | None, until: str = "") -> Path:
    """File of the rows before the first day.

    Args:
        given: the file itself. until: the first day, of a log of interactions, whose events before it are the history.

    Raises:
        DataUnavailable: none is given, and the dataset is not generated, or has no rows before the day.
    """
    if given is not None:
        return given
    if until and is_chain(settings):
        return dataset_rows(settings, before=checked_date(until))
    if is_chain(settings):
        raise DataUnavailable(f"dataset {settings.dataset_name}: say by --until YYYY-MM-DD where the history ends")
    if settings.dataset_name != GENERATED:
        raise DataUnavailable(f"dataset {settings.dataset_name}: give its rows by --history FILE")
    return history_file(settings)


def day_of(settings: Settings, archive: DayArchive, date: str, given: Path | None) -> Path | None:
    """File of a day's rows; None when they lie in the archive.

    Raises:
        DataUnavailable: none is given, none lies there, and the dataset neither is generated nor has rows of that day.
    """
    if given is not None or archive.path(date).exists():
        return given
    if is_chain(settings):
        return dataset_rows(settings, on=date)
    if settings.dataset_name != GENERATED:
        raise DataUnavailable(f"{date}: put its rows into {archive.path(date)}, or give them by --rows FILE")
    return day_file(settings, Date.fromisoformat(date))
