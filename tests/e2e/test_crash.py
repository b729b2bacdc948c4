"""The short form of benchmarks/crash.py: kill -9 of the daily job and of the event worker leaves no trace."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.crash import killed_jobs, killed_worker

pytestmark = pytest.mark.e2e


def test_a_daily_job_that_was_killed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    found = killed_jobs(tmp_path, 2, random.Random(1), released=False)
    assert found["equal"], found["differs"]


def test_an_event_is_archived_once_although_its_worker_is_killed(tmp_path: Path) -> None:
    found = killed_worker(tmp_path, 2, random.Random(1), events=400)
    assert found["archived_once"] and found["waiting"] == 0, found
