"""The test run itself: what a worker that dies leaves behind is run, and the run ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tests

DEADLY = """
import os, pytest

@pytest.mark.parametrize("number", range(30))
def test_alone(number):
    assert number != 12 or os._exit(1)

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(6))
def test_together(number):
    assert number != 2 or os._exit(1)
"""


def test_a_worker_that_dies_costs_its_test_alone(tmp_path: Path) -> None:
    (tmp_path / "test_deadly.py").write_text(DEADLY, encoding="utf-8")
    options = ["-n", "2", "--dist", "loadgroup", "-p", "tests.crash_safe_schedule", "-p", "no:cacheprovider", "-q"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path), "--rootdir", str(tmp_path)],
        cwd=Path(tests.__path__[0]).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "2 failed, 34 passed" in run.stdout, run.stdout + run.stderr
