"""The generated repair-shop log on disk: its history and its days, made when they are asked for and not there.

raw/repair_shop/<settings' digest>/history.parquet
                                  /days/<YYYY-MM-DD>/rows.parquet
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import date as Date
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_exchange_center.errors import DataUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_table, write_table
from offline.datasets.repair_shop import FIRST_DAY, RepairShopConfig, RepairShopLog, day_path, write_day

GENERATED = "repair_shop"


def log_of(settings: Settings) -> RepairShopLog:
    """The log that the settings describe."""
    data = settings.data
    return RepairShopLog(
        RepairShopConfig(
            seed=data.synthetic_seed,
            rows_per_day=data.repair_rows_per_day,
            history_rows=data.repair_history_rows,
            days=data.repair_days,
        )
    )


def history_file(settings: Settings) -> Path:
    """File of the rows before day 0."""
    log = log_of(settings)
    path = _folder(settings, log) / "history.parquet"
    if not path.exists():
        write_table(path, log.history())
    return path


def day_file(settings: Settings, date: Date) -> Path:
    """File of a day's rows.

    Raises:
        DataUnavailable: the log has no such day.
    """
    log = log_of(settings)
    number = (date - FIRST_DAY).days
    if not 0 <= number < log.config.days:
        last = FIRST_DAY.toordinal() + log.config.days - 1
        raise DataUnavailable(
            f"{date}: the generated log goes from {FIRST_DAY} to {Date.fromordinal(last)} (setting data.repair_days)",
            field="date",
        )
    path = day_path(_folder(settings, log), number)
    return path if path.exists() else write_day(log, number, path.parents[2])


def write_repair_shop(settings: Settings) -> dict[str, Any]:
    """Makes every file that is not there.

    Returns:
        history (file, rows, share of positives, brands, shops, distinct texts), and days: date, file, and who appears on it.
    """
    log, history = log_of(settings), history_file(settings)
    table = read_table(history)
    days = []
    for number in range(log.config.days):
        date, facts = Date.fromordinal(FIRST_DAY.toordinal() + number), log.facts(number)
        new = {"new_brands": list(facts.new_brands), "new_shops": list(facts.new_shops)}
        days.append({"date": date.isoformat(), "file": str(day_file(settings, date)), **new})
    return {
        "dataset": GENERATED,
        "history": {
            "file": str(history),
            "rows": len(table),
            "positive_rate": round(pc.mean(table["label"]).as_py(), 4),
            **{
                name: pc.count_distinct(table[name]).as_py() for name in ("car_brand", "shop_id", "city_id", "text_raw")
            },
        },
        "rows_per_day": log.config.rows_per_day,
        "days": days,
    }


def _folder(settings: Settings, log: RepairShopLog) -> Path:
    digest = hashlib.sha256(json.dumps(asdict(log.config)).encode()).hexdigest()[:12]
    return Workspace(settings).raw / digest
