"""What the crash benchmark kills: one day of a small scene's daily job, and what must be on disk afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_exchange_center.release import find_release, list_releases
from data_exchange_center.workspace import read_json, sha256
from offline.incremental.click_scene import ClickScene
from offline.incremental.delivery import Nowhere, Released
from offline.incremental.job import DailyJob
from offline.incremental.state import load_state
from offline.models.ranker import WEIGHTS_FILE
from tests.unit.incremental.small_scene import rows_of, settings_of

BRANDS = 6
POISONED, FLIPPED = 2, 0.4  # of the days, by number: one is held, waits and is quarantined


def job(folder: Path, released: bool) -> DailyJob:
    """The job of the small scene in a folder; releases on disk, when wanted."""
    settings = settings_of(folder, **{"incremental.publish": False})
    return DailyJob(settings, ClickScene(settings), Released(settings) if released else Nowhere())


def first_training(folder: Path, released: bool) -> None:
    """Writes the rows of the history and does the first training."""
    os.environ["TQDM_DISABLE"] = "1"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows_of(0, 1500), folder / "history.parquet")
    job(folder, released).first(folder / "history.parquet")


def one_day(folder: Path, number: int, released: bool) -> None:
    """One day, as s2_daily_job.py does it."""
    rows = folder / f"day-{number}.parquet"
    if not rows.exists():
        made = rows_of(100 + number, brands=BRANDS, flipped=FLIPPED if number == POISONED else 0.0)
        pq.write_table(made, rows.with_suffix(".new"))
        rows.with_suffix(".new").rename(rows)
    job(folder, released).run(date_of(number), rows)


def date_of(number: int) -> str:
    """The date of a day by its number, from 0 to 27."""
    return f"2026-01-{number + 1:02d}"


def held(folder: Path, released: bool) -> dict[str, Any]:
    """All that a job leaves and that must not depend on its being killed; a release's id names the moment and is left out."""
    made = job(folder, released)
    state = load_state(made.folder).model_dump(mode="json")
    settings = made.settings
    names = {release: f"release-{place}" for place, release in enumerate(list_releases(settings))}
    for one in [*state["promoted"], *state["finished"].values()]:
        one["release"] = names.get(one["release"], one["release"])
    patterns = (f"runs/*/network/{WEIGHTS_FILE}", "replay/*.parquet", "ready/*/*.parquet")
    files = sorted(path for pattern in patterns for path in made.folder.glob(pattern))
    notes = [find_release(settings, release).manifest["incremental"] for release in names]
    return {
        "state": state,
        "files": {str(path.relative_to(made.folder)): sha256(path) for path in files},
        "evidence": [read_json(path)["attempts"] for path in sorted((made.folder / "evidence").glob("*.json"))],
        "releases": notes,
        "unfinished": (made.folder / "work").exists(),
        "report": (made.folder / "report.html").exists(),
    }
