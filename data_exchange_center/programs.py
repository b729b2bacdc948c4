"""Runs Marquee's own programs as processes: how one room drives another without importing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from data_exchange_center.errors import MarqueeError
from data_exchange_center.settings import ROOT, Settings, environment_for


class ProgramFailed(MarqueeError):
    """A program ended with an error; the message carries what it said. `code` is the one in its JSON, when it gave one."""


def run_program(
    script: str, arguments: Sequence[str], settings: Settings, timeout: float | None = None
) -> dict[str, Any]:
    """Runs a step script to its end and returns the JSON object in its last line of stdout.

    Args:
        script: path from the checkout's root, e.g. "offline/s0_run_offline.py".
        arguments: its command line.
        settings: handed over through the environment, so that the program sees exactly these.
        timeout: seconds.

    Raises:
        ProgramFailed: it exited with an error, ended without a JSON object, or ran past the timeout.
    """
    command = [sys.executable, str(ROOT / script), *arguments]
    try:
        done = subprocess.run(
            command, env=environment_for(settings), stdout=subprocess.PIPE, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(f"{script}: not done after {timeout:.0f} s") from error
    result = last_json(done.stdout)
    if result is None:
        raise ProgramFailed(
            f"{script}: exit status {done.returncode} and no JSON object on its last line; see its messages above"
        )
    if done.returncode not in (0, 1) or (done.returncode == 1 and result.get("ok") is not False):
        said = result.get("error", {})
        failed = ProgramFailed(
            f"{script}: {said.get('message', f'exit status {done.returncode}')}", field=said.get("field")
        )
        failed.code = said.get("code", failed.code)
        raise failed
    return result


def last_json(output: str) -> dict[str, Any] | None:
    """The JSON object that a program's output ends with; None when there is none."""
    try:
        result = json.loads(output.strip().rpartition("\n")[2])
    except json.JSONDecodeError:
        return None
    return result if isinstance(result, dict) else None


@contextmanager
def running_program(
    script: str, arguments: Sequence[str], settings: Settings, grace: float = 10.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a program in a process group of its own and ends the whole group when the block is left."""
    command = [sys.executable, str(ROOT / script), *arguments]
    process = subprocess.Popen(
        command,
        env=environment_for(settings),
        stdout=sys.stderr.fileno(),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process, grace)


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
