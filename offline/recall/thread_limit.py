"""Keeps linear algebra to a number of threads while a block runs.

Recall works on many small matrices. On a machine where other programs run, too, threads that wait for each other at the end of
each of them cost far more than they save: training took 40 times as long with two threads on two busy cores as with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def thread_limit(count: int) -> Iterator[None]:
    """BLAS, OpenMP and torch use at most `count` threads inside; what was set before holds again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)
