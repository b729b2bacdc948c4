"""Same seed, same numbers."""

from __future__ import annotations

import torch


def seed_everything(seed: int, threads: int, *, deterministic: bool = True) -> None:
    """Sets torch's generators, the number of threads and deterministic kernels.

    Memory that a kernel allocates stays unfilled: filling it would only make reads of it repeatable, and costs time in each step.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property made at run time
