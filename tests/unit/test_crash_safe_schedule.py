"""The test run itself: what a worker that dies leaves behind is run, and the run ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tests

# Both first workers die at once, and the first of the two that take their places collects slowly: the other one, which is ready,
# must get work while there are a worker that cannot take any yet and one that never will.
DEADLY = """
import os, pathlib, time, pytest

if os.environ.get("PYTEST_XDIST_WORKER") == "gw2":
    time.sleep(2)

HERE = pathlib.Path(__file__).parent

def die(name, other):
    (HERE / name).touch()
    until = time.monotonic() + 20
    while not (HERE / other).exists() and time.monotonic() < until:
        time.sleep(0.01)
    os._exit(1)

@pytest.mark.parametrize("number", range(30))
def test_alone(number):
    assert number != 12 or die("alone", "together")

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(6))
def test_together(number):
    assert number != 2 or die("together", "alone")
"""


def test_a_worker_that_dies_costs_its_test_alone(tmp_path: Path) -> None:
    (tmp_path / "test_deadly.py").write_text(DEADLY, encoding="utf-8")
    options = [
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "-p",
        "xdist",
        "-p",
        "tests.crash_safe_schedule",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path), "--rootdir", str(tmp_path)],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=Path(tests.__path__[0]).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "2 failed, 34 passed" in run.stdout, run.stdout + run.stderr
