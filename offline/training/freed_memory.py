"""Lets a training process keep the memory that a step frees, because the next step wants as much again.

glibc gives large freed blocks back to the system, and each step then pays for every page anew: about a tenth of a step in bfloat16.
"""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)
LARGEST_BLOCK = 32 << 20  # glibc allows no larger threshold
KEPT = 2**31 - 1  # bytes at the heap's end before any are given back
AHEAD = 64 << 20  # bytes taken at a time


def keep_freed_memory() -> bool:
    """Sets glibc's allocator for this process; false, and nothing happens, where there is another."""
    if platform.libc_ver()[0] != "glibc":
        return False
    settings = ((MMAP_THRESHOLD, LARGEST_BLOCK), (TRIM_THRESHOLD, KEPT), (TOP_PAD, AHEAD))
    allocator = ctypes.CDLL(None)
    return all(allocator.mallopt(name, value) == 1 for name, value in settings)
