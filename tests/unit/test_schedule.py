"""The test run itself: a file's tests go to one worker, and what a worker that dies leaves behind is run, and the run ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tests
from data_exchange_center.settings import ROOT
from tests.schedule import LONGEST_FIRST, UNITS, unit_of

# Both first workers die at once, and the first of the two that take their places collects slowly: the other one, which is ready,
# must get work while there are a worker that cannot take any yet and one that never will.
DEADLY = """
import os, pathlib, time, pytest

if os.environ.get("PYTEST_XDIST_WORKER") == "gw2":
    time.sleep(2)

HERE = pathlib.Path(__file__).parent

@pytest.mark.parametrize("number", range({tests}))
def test(number):
    if number == {deadly}:
        (HERE / "{own}").touch()
        until = time.monotonic() + 20
        while not (HERE / "{other}").exists() and time.monotonic() < until:
            time.sleep(0.01)
        os._exit(1)
"""


def run_of(folder: Path, *options: str) -> str:
    """What two workers say about the tests of a folder, shared out as ours are."""
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "xdist", "-p", "tests.schedule"]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(folder), "--rootdir", str(folder)],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=Path(tests.__path__[0]).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run.stdout + run.stderr


def test_a_worker_that_dies_costs_its_test_alone(tmp_path: Path) -> None:
    alone, together = ({"own": own, "other": other} for own, other in (("one", "two"), ("two", "one")))
    for name, values in {"a": alone | {"tests": 30, "deadly": 12}, "b": together | {"tests": 6, "deadly": 2}}.items():
        (tmp_path / f"test_{name}.py").write_text(DEADLY.format(**values), encoding="utf-8")
    told = run_of(tmp_path, "-q")
    assert "2 failed, 34 passed" in told, told


def test_a_file_is_run_by_one_worker(tmp_path: Path) -> None:
    text = (
        "import pytest, time\n\n@pytest.mark.parametrize('number', range(9))\ndef test(number):\n    time.sleep(0.01)\n"
    )
    for name in "abcd":
        (tmp_path / f"test_{name}.py").write_text(text, encoding="utf-8")
    told = run_of(tmp_path, "-v")
    ran = set(re.findall(r"\[(gw\d)\].* PASSED \S*test_(\w)\.py", told))
    assert sorted(name for _, name in ran) == [*"abcd"], told
    assert {worker for worker, _ in ran} == {"gw0", "gw1"}, told


def test_what_the_schedule_names_is_there() -> None:
    assert all((ROOT / name).exists() for name in (*UNITS, *UNITS.values(), *LONGEST_FIRST))
    assert all(unit_of(name) == name for name in LONGEST_FIRST)


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/unit/rows/test_reader.py::test_a[x/y::z]", "tests/unit/rows/test_reader.py"),
        ("tests/contract/test_scorer.py::test_a[triton-1]", "tests/contract/"),
        ("tests/unit/rank/test_packed_graph.py::test_a", "tests/unit/rank/test_extreme_values.py"),
    ],
)
def test_a_unit_is_a_file_or_files_that_share(test: str, unit: str) -> None:
    assert unit_of(test) == unit
