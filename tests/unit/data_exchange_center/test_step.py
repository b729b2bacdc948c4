"""How a step's program ends when the disk does not do what it is asked."""

from __future__ import annotations

import argparse
import errno
import json
import os
from typing import Any

import pytest

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/store/x"), "/store/x: No space left on device; make room"),
        (OSError("21600 requested and 2016 written"), "2016 written; make room"),  # as NumPy has it
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/store"), "Read-only file system; choose a folder"),
        (PermissionError(errno.EACCES, "Permission denied", "/store"), "give this user the right to it"),
    ],
)
def test_what_the_disk_refuses_is_said_with_what_to_do(
    capsys: pytest.CaptureFixture[str], error: OSError, says: str
) -> None:
    def step(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_step("tried", parser(""), step, ["--quiet"])
    assert ended.value.code == 2
    said = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert said["code"] == "disk"
    assert says in said["message"]


def test_any_other_error_of_the_system_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    def step(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    with pytest.raises(FileNotFoundError):
        run_step("tried", parser(""), step, ["--quiet"])
