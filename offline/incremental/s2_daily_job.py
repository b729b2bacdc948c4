"""Does one day: archive, split, train from the live model's checkpoint, judge both on the same rows, promote or hold.

    s2_daily_job.py --dataset repair_shop --date 2026-01-01                 rows in days/2026-01-01/rows.parquet, or generated
    s2_daily_job.py --dataset repair_shop --date 2026-01-01 --rows FILE     rows from a file
    s2_daily_job.py --dataset repair_shop --date 2026-01-01 --no-publish    a release on disk alone
    s2_daily_job.py --dataset repair_shop --accept 2026-01-01 --why "…"     learn a held or quarantined day that a person found good
    s2_daily_job.py --dataset repair_shop --discard 2026-01-01 --why "…"    never try it again; its rows stay in the archive

One job at a time. Killed, it is run again in the same way; run again after it ended, it changes nothing.
"""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline.incremental.s1_init_train import job_of, with_publish
from offline.incremental.sources import day_of


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = with_publish(parser((__doc__ or "").strip()))
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument("--date", help="YYYY-MM-DD, the day to do")
    what.add_argument("--accept", metavar="DATE", help="a held day to learn and make live, whatever the gate finds")
    what.add_argument("--discard", metavar="DATE", help="a held day to take out of the backlog for good")
    arguments.add_argument("--rows", help="Parquet file of the rows of --date")
    arguments.add_argument("--why", default="", help="the reason to accept or to discard, for the record")
    arguments.add_argument("--by", default="", help="who decides that (default: the user of this process)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        job = job_of(settings, parsed)
        if parsed.date is None:
            decide = job.accept if parsed.accept else job.discard
            return decide(parsed.accept or parsed.discard, parsed.by or getpass.getuser(), _reason(parsed.why))
        return job.run(parsed.date, day_of(settings, job.days, parsed.date, Path(parsed.rows) if parsed.rows else None))

    run_step("incremental/s2_daily_job", arguments, step, argv)


def _reason(why: str) -> str:
    if not why.strip():
        raise SettingsError(
            "say by --why what was looked at and why the day is good, or not; it is kept", field="--why"
        )
    return why.strip()


if __name__ == "__main__":
    main()
