"""Many runs that share their data: each in its own folder, finished ones never trained again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_exchange_center.errors import DataError, MarqueeError
from offline.rank.click_run import train_run
from offline.training.config import TrainConfig
from offline.training.trainer import BETTER

log = logging.getLogger("marquee")


@dataclass(frozen=True)
class Trained:
    """One variant after all its seeds.

    Attributes:
        name: of the variant.
        folders, results: a run's folder and what its metrics.json holds, per seed.
    """

    name: str
    folders: tuple[Path, ...]
    results: tuple[Mapping[str, Any], ...]

    def mean(self, *path: str) -> float | None:
        """Mean over seeds of one number of the results; None when a seed has none."""
        values = [_at(result, path) for result in self.results]
        return None if any(value is None for value in values) else sum(values) / len(values)  # type: ignore[arg-type]


def _at(tree: Any, path: Sequence[str]) -> float | None:
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return None if tree is None else float(tree)


def train_all(
    variants: Mapping[str, TrainConfig], output: Path, seeds: int, metric: str
) -> tuple[list[Trained], dict[str, str]]:
    """Trains each variant with each seed into `<output>/<variant>/seed-<n>`; what has ended is read, what was cut off goes on.

    Returns:
        What was trained, best by that metric of validation first, and the message of each variant that could not be.

    Raises:
        DataError: nothing could be trained.
    """
    trained, failed = [], {}
    with tqdm(total=len(variants) * seeds, desc="runs", unit=" runs") as bar:
        for name, config in variants.items():
            folders, results = [], []
            try:
                for seed in range(config.training.seed, config.training.seed + seeds):
                    bar.set_postfix_str(f"{name}, seed {seed}")
                    folder = output / name / f"seed-{seed}"
                    prepared = config.data.prepared or str(output / "prepared")
                    values = {"training.seed": seed, "training.output": str(folder), "data.prepared": prepared}
                    results.append(train_run(config.with_values(**values), resume=True))
                    folders.append(folder)
                    bar.update()
                trained.append(Trained(name, tuple(folders), tuple(results)))
            except MarqueeError as error:
                failed[name] = error.message
                log.warning("  %s: %s", name, error.message)
                bar.update(seeds - len(results))
    if not trained:
        raise DataError(f"nothing could be trained: {failed}")
    trained.sort(key=lambda one: -BETTER[metric] * (one.mean("metrics", "validation", metric) or 0.0))
    return trained, failed
