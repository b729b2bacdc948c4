"""What every benchmark prints: the machine it ran on, its numbers, and the JSON object that ends stdout."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> str:
    """What the numbers were measured on, and how busy it was: 2 x AMD EPYC, 23 GiB, Linux, Python 3.11.7, load 0.4."""
    facts = Path("/proc/cpuinfo")
    text = facts.read_text(encoding="utf-8") if facts.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} x {names[0] if names else platform.machine()}, {memory:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def report(name: str, ours: Mapping[str, Any], peer: Mapping[str, Any], ratio: Any, **more: Any) -> None:
    """Prints a readable table to stderr and the JSON object to stdout.

    Args:
        name: of the benchmark.
        ours, peer: measurements; units are in the keys (seconds, rows_per_s, p50_ms, mib).
        ratio: how many times better ours is, a number or one per peer.
        more: further entries of the JSON object.
    """
    result = {"name": name, "machine": machine(), "ours": ours, "peer": peer, "ratio": ratio, **more}
    for key, value in result.items():
        print(f"  {key:10s} {value}", file=sys.stderr)
    print(json.dumps(result, ensure_ascii=False), flush=True)
