"""Memory that is reserved for what a table may become and taken from the machine only as it is written.

A table that grows by doubling stops the training for a copy each time, and holds old and new side by side. Address space costs
nothing: a table reserves it once for all rows it may ever have, and the system hands out pages as rows come, in large pages where
it has them, which is what keeps look-ups in a table of many gigabytes as fast as in a small one.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource

import torch
from torch import Tensor

SHARE = 8  # of a limit on the process, what one table may reserve


def rows_that_fit(bytes_a_row: int) -> int:
    """How many rows of a table this machine's memory could hold at most; rows are counted in int32.

    A limit set on the process (`ulimit -d`, `-v`) counts what is reserved, so a table takes a share of it: others and all else
    need theirs.
    """
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = min([memory, *(limit // SHARE for limit in limits if limit != resource.RLIM_INFINITY)])
    return max(1, min(memory // bytes_a_row, 2**31 - 1))


def reserve(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """A tensor of zeros [rows, width] on the CPU whose pages exist once they are written."""
    size = max(rows * width * dtype.itemsize, 1)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages; nothing but speed depends on them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=rows * width).view(rows, width)
