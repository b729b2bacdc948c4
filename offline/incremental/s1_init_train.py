"""Trains the first model of a scene on its history and makes it live; from then on s2_daily_job.py goes on day by day.

    s1_init_train.py --dataset repair_shop                     on generated rows
    s1_init_train.py --dataset repair_shop --history FILE      Parquet: the scene's raw columns, label, timestamp, event_id
    s1_init_train.py --dataset repair_shop --no-publish        a release on disk alone
    s1_init_train.py --dataset ml-100k --until 1998-04-01      a log of interactions: what is before that day is its history

The newest `incremental.validation_share` of the rows picks the epoch. Run again it returns what there is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline.incremental.chain_log import is_chain
from offline.incremental.chain_scene import ChainScene
from offline.incremental.click_scene import ClickScene
from offline.incremental.delivery import Released
from offline.incremental.job import DailyJob
from offline.incremental.scene import Scene
from offline.incremental.sources import history_of


def with_publish(arguments: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the option that both scripts of the daily job have."""
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--no-publish", action="store_true", help="release on disk, and leave the stores alone")
    return arguments


def job_of(settings: Settings, arguments: argparse.Namespace) -> DailyJob:
    """The job of the settings' scene."""
    if arguments.no_publish:
        settings = settings.with_values(**{"incremental.publish": False})
    scene: Scene = ChainScene(settings) if is_chain(settings) else ClickScene(settings)
    return DailyJob(settings, scene, Released(settings))


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = with_publish(parser((__doc__ or "").strip()))
    arguments.add_argument("--history", help="Parquet file of the rows before the first day")
    arguments.add_argument(
        "--until", default="", help="first day, YYYY-MM-DD, of a log whose rows before it are the history"
    )

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return job_of(settings, parsed).first(
            history_of(settings, Path(parsed.history) if parsed.history else None, parsed.until)
        )

    run_step("incremental/s1_init_train", arguments, step, argv)


if __name__ == "__main__":
    main()
