"""Rows of earlier days on which a candidate shows what it has forgotten: a sample of fixed size of each promoted day's validation.

    replay/<YYYY-MM-DD>.parquet   ready rows (ids and vectors), as the scene makes them

Nothing ever learns from them. Which of them are replayed the state says; a file that it does not name is of a day that was not
promoted, or too old.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from data_exchange_center.workspace import read_table, write_table
from offline.incremental.days import sample_of


class Replay:
    """The samples below one folder.

    Args:
        days: promoted days that are replayed. rows: of each.
    """

    def __init__(self, folder: Path, days: int, rows: int) -> None:
        self.folder, self.days, self.rows = folder, days, rows

    def keep(self, date: str, validation: pa.Table) -> Path:
        """Writes a day's sample; the same rows give the same sample."""
        path = self.folder / f"{date}.parquet"
        write_table(path, sample_of(validation, self.rows))
        return path

    def chosen(self, dates: Sequence[str]) -> list[str]:
        """Of promoted days, the newest that are replayed, ascending."""
        return sorted(dates)[len(dates) - min(self.days, len(dates)) :]

    def read(self, dates: Sequence[str]) -> pa.Table | None:
        """The samples of the newest promoted days; None when there is none."""
        tables = [read_table(self.folder / f"{date}.parquet") for date in self.chosen(dates)]
        return pa.concat_tables(tables) if tables else None

    def forget(self, kept: Collection[str]) -> None:
        """Removes samples of days that are not replayed any more."""
        for path in self.folder.glob("*.parquet"):
            if path.stem not in kept:
                path.unlink()
