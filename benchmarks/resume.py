"""Kills training with SIGKILL at random moments in mid-epoch, resumes it, and compares with a run that was never stopped.

    python benchmarks/resume.py
    python benchmarks/resume.py --chains 4 --kills 4 --tears 60 --streamed

A chain is one run that is killed and resumed several times, in processes of their own; a kill counts as `equal` when its chain ends
with the same bytes of weights, the same losses of every epoch and the same metrics as the run that was never stopped. Then the
newest checkpoint of a killed run is torn at random offsets, cut or overwritten in a random one of its files: a tear counts as
`recovered` when the checkpoint before is the one that is found; every chain also resumes once over a torn checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import report
from data_exchange_center.errors import DataError
from data_exchange_center.settings import ROOT
from data_exchange_center.workspace import read_json, sha256
from offline.datasets.criteo_synthetic import write_synthetic
from offline.models.ranker import WEIGHTS_FILE
from offline.rank.click_run import METRICS, NETWORK
from offline.training.checkpoint import CHECKSUMS, STATE, TENSORS, newest_checkpoint
from offline.training.trainer import CHECKPOINTS, LOG, read_log

log = logging.getLogger("marquee.benchmark")

ROWS, VALIDATION_ROWS, BATCH, EPOCHS, SAVE_EVERY = 30_000, 3_000, 256, 2, 20
STEPS = EPOCHS * -(-ROWS // BATCH)
PATIENCE = 300.0  # seconds a process may take


def main(argv: Sequence[str] | None = None) -> None:
    """The benchmark as a program."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--chains", type=int, default=2, help="runs that are killed")
    arguments.add_argument("--kills", type=int, default=3, help="kills of each (default: 3)")
    arguments.add_argument("--tears", type=int, default=40, help="torn checkpoints (default: 40)")
    arguments.add_argument("--streamed", action="store_true", help="stream the rows instead of caching them encoded")
    arguments.add_argument("--seed", type=int, default=None, help="of the moments and offsets; a new one each time")
    given = arguments.parse_args(argv)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(2**31)
    with tempfile.TemporaryDirectory(prefix="marquee-resume-") as folder:
        measured = measure(Path(folder), given.chains, given.kills, given.tears, given.streamed, random.Random(seed))
    print(f"  seed of the moments {seed}", file=sys.stderr)
    whole = measured["equal"] == measured["kills"] and measured["recovered"] == measured["torn"]
    report("resume", {**measured, "seed": seed}, {}, {}, ok=whole, **measured)
    raise SystemExit(0 if whole else 1)


def measure(folder: Path, chains: int, kills: int, tears: int, streamed: bool, chance: random.Random) -> dict[str, int]:
    """Kills, those after which all was equal, tears, and those that were recovered from."""
    write_synthetic(folder / "train", ROWS, seed=1)
    write_synthetic(folder / "validation", VALIDATION_ROWS, seed=2)
    whole = _config(folder, "whole", streamed)
    _finish(_start(whole))
    counts = {"kills": 0, "equal": 0, "torn": 0, "recovered": 0}
    for number in range(chains):
        config = _config(folder, f"chain-{number}", streamed)
        done = _kill_and_resume(config, kills, chance)
        if not number:
            _tear_copies(folder, _run_of(config), tears, chance, counts)
        step = _tear(_run_of(config) / CHECKPOINTS, chance)
        _finish(_start(config))
        counts["kills"] += done
        same = _result(_run_of(config)) == _result(_run_of(whole))
        counts["equal"] += done * same
        log.info(
            "  chain %d: %d kills, the checkpoint of step %d torn, %s",
            number,
            done,
            step,
            "equal" if same else "UNEQUAL",
        )
    return counts


def _config(folder: Path, name: str, streamed: bool) -> Path:
    path = folder / f"{name}.yaml"
    settings = {
        "data": {
            "folder": str(folder),
            "train": ["train"],
            "validation": ["validation"],
            "cache": not streamed,
            "shuffle_rows": 5000,
            "prepared": str(folder / "prepared"),
        },
        "features": {"spec": "criteo", "select": ["i*", "c*", "-c*_target", "-c*_count"]},
        "model": {"name": "deepfm", "options": {"hidden": [64, 32]}},
        "optimizer": {"schedule": "cosine"},
        "training": {
            "output": str(folder / name),
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "log_every": 1,
            "save_every": SAVE_EVERY,
        },
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def _run_of(config: Path) -> Path:
    return config.with_suffix("")


def _start(config: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "offline.rank.train", "--config", str(config), "--resume", "--quiet"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait(PATIENCE):
        raise DataError(f"training ended with {process.returncode}; its message is above")


def _kill_and_resume(config: Path, kills: int, chance: random.Random) -> int:
    """Kills a run and lets it go on, some time after a step further on each time. Returns how often it was really cut off."""
    done = 0
    for number in range(kills):
        low, high = (STEPS * (number + place) // (kills + 1) for place in (0.3, 1.0))
        process = _start(config)
        _wait_for(process, _run_of(config) / LOG, chance.randint(int(low) + SAVE_EVERY, int(high) + SAVE_EVERY))
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        done += process.wait() == -signal.SIGKILL
    return done


def _wait_for(process: subprocess.Popen[bytes], path: Path, step: int) -> None:
    """Until the log has come to a step, or the process has ended."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        if path.exists() and (lines := read_log(path)) and lines[-1]["step"] >= step:
            return
        time.sleep(0.01)


def _tear_copies(folder: Path, run: Path, tears: int, chance: random.Random, counts: dict[str, int]) -> None:
    """Tears copies of a run's checkpoints, and looks which one is found then."""
    whole = sorted((run / CHECKPOINTS).glob("step-*"))
    if len(whole) < 2:
        raise DataError(f"{run}: has fewer than two checkpoints to tear")
    logging.getLogger("marquee").setLevel(logging.ERROR)  # each tear would be reported
    for _ in range(tears):
        copy = folder / "torn"
        shutil.copytree(run / CHECKPOINTS, copy)
        _tear(copy, chance)
        found = newest_checkpoint(copy)
        counts["torn"] += 1
        counts["recovered"] += found is not None and whole[-2].name.endswith(f"{found.step:09d}")
        shutil.rmtree(copy)
    logging.getLogger("marquee").setLevel(logging.NOTSET)


def _tear(checkpoints: Path, chance: random.Random) -> int:
    """Cuts off or overwrites the newest checkpoint in one of its files; returns its step."""
    newest = sorted(checkpoints.glob("step-*"))[-1]
    path = newest / chance.choice([TENSORS, STATE, CHECKSUMS])
    content = bytearray(path.read_bytes())
    place = chance.randrange(
        len(content) - 2
    )  # the last two bytes are a bracket and a line's end, which JSON can do without
    if chance.random() < 0.5:
        path.write_bytes(content[:place])
    else:
        while chr(content[place]).isspace():
            place += 1
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    return int(newest.name.removeprefix("step-"))


def _result(run: Path) -> Mapping[str, Any]:
    """What must be the same to the last bit."""
    metrics = read_json(run / METRICS)
    kept = {
        name: metrics[name] for name in ("history", "metrics", "calibration", "train_loss", "final_train_loss", "steps")
    }
    return {**kept, "weights": sha256(run / NETWORK / WEIGHTS_FILE)}


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    main()
