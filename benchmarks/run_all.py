"""Runs every benchmark, one after another, and prints the JSON object of each on a line of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NOT_BENCHMARKS = {"__init__", "run_all", "common", "plain_chain", "plain_upload"}


def main() -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "names", nargs="*", choices=[*names, []], help=f"which ones; all by default: {', '.join(names)}"
    )
    failed = []
    for name in arguments.parse_args().names or names:
        print(f"== {name}", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, str(FOLDER / f"{name}.py")], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            failed.append(name)
        print(done.stdout.strip().rpartition("\n")[2], flush=True)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
