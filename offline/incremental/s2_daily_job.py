"""Does one day: archive, split, train from the live model's checkpoint, judge both on the same rows, promote or hold.

    s2_daily_job.py --dataset repair_shop --date 2026-01-01                 rows in days/2026-01-01/rows.parquet, or generated
    s2_daily_job.py --dataset repair_shop --date 2026-01-01 --rows FILE     rows from a file
    s2_daily_job.py --dataset repair_shop --date 2026-01-01 --no-publish    a release on disk alone

One job at a time. Killed, it is run again with the same date; run again after it ended, it changes nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline.incremental.s1_init_train import job_of, with_publish
from offline.incremental.sources import day_of


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = with_publish(parser((__doc__ or "").strip()))
    arguments.add_argument("--date", required=True, help="YYYY-MM-DD")
    arguments.add_argument("--rows", help="Parquet file of the day's rows")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        job = job_of(settings, parsed)
        return job.run(parsed.date, day_of(settings, job.days, parsed.date, Path(parsed.rows) if parsed.rows else None))

    run_step("incremental/s2_daily_job", arguments, step, argv)


if __name__ == "__main__":
    main()
