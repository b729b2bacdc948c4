"""kill -9 at random moments: of the daily job, and of the worker that archives events.

    python benchmarks/crash.py                   50 kills of each
    python benchmarks/crash.py --kills 6         a short form

The job: days of a small scene, one of them with flipped labels, each day killed some times and then run to its end; a fifth of the
kills is of jobs that pack releases. A job that was done before its moment counts as none. In the end state, weights, samples,
evidence and releases must equal, byte by byte, those of days that were never killed. The worker: events in the store's Redis, a
worker killed again and again; in the end every event must be in the archive exactly once, and none may wait. Moments are drawn
evenly over how long one takes that is not killed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from benchmarks.support import crash_jobs
from data_exchange_center.errors import MarqueeError
from data_exchange_center.event_archive import EventArchive, archive_folder
from data_exchange_center.settings import ROOT, Settings, environment_for
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, read_table
from online.stores import embedded_redis
from online.stores.open import open_users
from online.stores.ports import Event
from tests.factories import make_settings

KILLS_A_DAY = 5
RELEASED_SHARE = 5  # one kill in so many is of a job that packs releases
EVENTS, BATCH = 4000, 20
IDLE_S = 0.2  # after which a dead worker's events are taken over
LONGEST_S = 120.0
WORKER = "online/main/s3_event_worker.py"
MOST_KILLS = 1000

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["benchmarks.support.crash_jobs"])  # what a job imports is imported once


def benchmark(kills: int, seed: int) -> dict[str, Any]:
    """The measurement.

    Args:
        kills: of the job, and of the worker. seed: of the moments.

    Raises:
        MarqueeError: a job or a worker failed without being killed, or hung.
    """
    if not 1 <= kills <= MOST_KILLS:
        raise MarqueeError(f"crash: 1 to {MOST_KILLS} kills, not {kills}")
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="marquee-crash-") as folder:
        released = max(1, kills // RELEASED_SHARE)
        jobs = [
            killed_jobs(Path(folder) / name, count, chance, packs)
            for name, count, packs in (("plain", kills - released, False), ("released", released, True))
            if count
        ]
        worker = killed_worker(Path(folder) / "events", kills, chance)
    done = {name: sum(one[name] for one in jobs) for name in ("kills", "days")}
    equal = all(one["equal"] for one in jobs)
    return {
        "name": "crash",
        "machine": machine(),
        "ok": equal and worker["archived_once"] and not worker["waiting"],
        "daily_job": {**done, "as_if_never_killed": equal, "differs": [d for one in jobs for d in one["differs"]]},
        "event_worker": worker,
    }


def killed_jobs(folder: Path, kills: int, chance: random.Random, released: bool) -> dict[str, Any]:
    """Days that are killed against days that are not."""
    for name in ("whole", "killed"):
        _ended(_forked(crash_jobs.first_training, folder / name, released))
    done = days = 0
    while done < kills:
        began = time.perf_counter()
        _ended(_forked(crash_jobs.one_day, folder / "whole", days, released))
        seconds = time.perf_counter() - began
        for _ in range(min(KILLS_A_DAY, kills - done)):
            process = _forked(crash_jobs.one_day, folder / "killed", days, released)
            process.join(chance.uniform(0.0, seconds))
            process.kill()
            process.join(LONGEST_S)
            done += process.exitcode == -signal.SIGKILL  # it may have ended before: a day that goes on has less to do
        _ended(_forked(crash_jobs.one_day, folder / "killed", days, released))
        days += 1
    whole, killed = (crash_jobs.held(folder / name, released) for name in ("whole", "killed"))
    differs = [name for name in whole if whole[name] != killed[name]]
    return {"kills": done, "days": days, "equal": not differs, "differs": differs}


def _forked(function: Callable[..., None], *arguments: Any) -> Any:
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    return process


def _ended(process: Any) -> None:
    process.join(LONGEST_S)
    if process.exitcode is None:
        process.kill()
        raise MarqueeError(f"crash: a job was not done after {LONGEST_S:.0f} s")
    if process.exitcode:
        raise MarqueeError(f"crash: a job that was not killed ended with {process.exitcode}; its message is above")


def killed_worker(folder: Path, kills: int, chance: random.Random, events: int = EVENTS) -> dict[str, Any]:
    """A worker that is killed again and again, and what the archive holds in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = make_settings(
        folder, **{"events.batch": BATCH, "events.linger_seconds": 0.0, "events.idle_seconds": IDLE_S}
    )
    scene, done, sent = settings.scene, 0, 0
    try:
        with closing(open_users(settings)) as users:
            users.append_events(scene, _events(0, events), LONGEST_S)
            began = time.perf_counter()
            _worked(_worker(settings))
            whole, sent = time.perf_counter() - began, events
            for number in range(kills):
                users.append_events(scene, _events(sent, BATCH * 5), LONGEST_S)
                sent += BATCH * 5
                process = _worker(settings, until_empty=False)
                time.sleep(chance.uniform(0.3, 1.0) * whole)
                process.send_signal(signal.SIGKILL)
                done += process.wait(LONGEST_S) == -signal.SIGKILL
                if number % 2:  # what comes twice counts once
                    users.append_events(scene, _events(sent - BATCH, BATCH), LONGEST_S)
            time.sleep(IDLE_S)
            _worked(_worker(settings))
            waiting = sum(users.events_queue.waiting(scene))
    finally:
        embedded_redis.stop(Workspace(settings).online)
    archive = EventArchive(archive_folder(settings))
    ids = [str(one) for day in archive.days() for one in archive_ids(archive, day)]
    expected = {event.event_id for event in _events(0, sent)}
    return {
        "kills": done,
        "events": sent,
        "archived": len(ids),
        "archived_once": len(ids) == len(set(ids)) and set(ids) == expected,
        "waiting": waiting,
    }


def archive_ids(archive: EventArchive, day: str) -> list[Any]:
    """Every event_id that lies in the files of a day, as often as it does: `read` would take repeated ones together."""
    files = [file for batch in archive.batches() for file in batch.glob(f"{day}.parquet")]
    return [one for file in files for one in read_table(file, ["event_id"])["event_id"].to_pylist()]


def _events(first: int, count: int) -> list[Event]:
    return [Event(f"e{n}", n % 50, n % 70, "click", None, 86_400 + n) for n in range(first, first + count)]


def _worker(settings: Settings, *, until_empty: bool = True) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / WORKER), "--quiet", *(["--until-empty"] if until_empty else [])]
    return subprocess.Popen(command, env=environment_for(settings), stdout=subprocess.DEVNULL)


def _worked(process: subprocess.Popen[bytes]) -> None:
    try:
        code = process.wait(LONGEST_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise MarqueeError(f"crash: a worker was not done after {LONGEST_S:.0f} s") from error
    if code:
        raise MarqueeError(f"crash: a worker that was not killed ended with {code}; its message is above")


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--kills", type=int, default=50, help="of the job, and of the worker (default: 50)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return benchmark(parsed.kills, settings.seed)

    run_step("crash", arguments, step, argv)


if __name__ == "__main__":
    main()
