"""A training process keeps what it frees."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import psutil, torch
from offline.training.freed_memory import keep_freed_memory
assert not {keep} or keep_freed_memory()
blocks = [torch.ones(2_500_000) for _ in range(20)]
held = psutil.Process().memory_info().rss
del blocks
print(held - psutil.Process().memory_info().rss)
"""


def given_back(keep: bool) -> int:
    """Bytes that the system gets back when 200 MB are freed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
def test_freed_memory_serves_the_next_step() -> None:
    assert given_back(keep=False) > 150e6
    assert given_back(keep=True) < 20e6
