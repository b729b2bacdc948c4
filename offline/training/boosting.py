"""Gradient-boosted trees (Friedman, 2001) on the numbers of a run, grown by LightGBM (Ke et al., 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from data_exchange_center.errors import SettingsError
from offline.models.trees import Trees
from offline.training.config import TreesConfig


def boosted_trees(numbers: np.ndarray, labels: np.ndarray, config: TreesConfig, *, seed: int, threads: int) -> Trees:
    """Grows trees; the same rows, settings and seed give the same ones.

    Args:
        numbers: float32 [R, m], no NaN. labels: float32 [R], 0 or 1.

    Returns:
        Trees whose sum is the logit, the rows' mean included; fewer than asked for when no split is left.

    Raises:
        SettingsError: LightGBM is not installed, or lacks the system's OpenMP library.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise SettingsError(
            f"trees.count needs lightgbm, which cannot be loaded ({error}); install requirements.txt and, where libgomp.so.1 is "
            "missing, the system's package libgomp1",
            field="trees.count",
        ) from error
    settings = {
        "objective": "binary",
        "learning_rate": config.learning_rate,
        "max_depth": config.depth,
        "num_leaves": 2**config.depth,
        "min_data_in_leaf": config.least_rows,
        "feature_fraction": config.columns,
        "bagging_fraction": config.rows,
        "bagging_freq": 1,
        "lambda_l2": config.l2,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    grown = lightgbm.train(settings, lightgbm.Dataset(numbers, labels), config.count).dump_model()["tree_info"]
    made = Trees(len(grown), config.depth)
    for place, tree in enumerate(grown):
        _fill(made, place, tree["tree_structure"])
    return made


def _fill(trees: Trees, place: int, root: Mapping[str, Any]) -> None:
    """One tree as a heap; what LightGBM calls `<=` goes left."""
    inner = 2**trees.depth - 1
    waiting: list[tuple[int, int, Mapping[str, Any]]] = [(0, 0, root)]
    while waiting:
        node, level, found = waiting.pop()
        if "split_feature" in found:
            trees.features[place * inner + node] = int(found["split_feature"])
            trees.thresholds[place * inner + node] = float32_at_most(float(found["threshold"]))
            waiting.append((2 * node + 1, level + 1, found["left_child"]))
            waiting.append((2 * node + 2, level + 1, found["right_child"]))
            continue
        below = 2 ** (trees.depth - level)  # leaves of the full tree
        start = (node + 1) * below - 1 - inner + place * (inner + 1)
        trees.leaves[start : start + below] = float(found["leaf_value"])


def float32_at_most(value: float) -> torch.Tensor:
    """The largest float32 that is at most a float64: a float32 is above the one exactly if it is above the other."""
    near = np.float32(value)
    return torch.tensor(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))
