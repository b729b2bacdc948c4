"""Pictures of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from offline.figures import COLOURS


def training_figure(
    lines: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]], chosen: int, metric: str
) -> Figure:
    """Loss by step on the left, AUC (and the metric that picked the epoch) by epoch on the right.

    Args:
        lines: of the log. history: one entry per epoch. chosen: the epoch that was picked, from 1. metric: that picked it.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 3.8), layout="constrained")
    steps = [line for line in lines if "loss" in line]
    left.plot(
        [line["step"] for line in steps], [line["loss"] for line in steps], color="#b8c7d6", label="train, per interval"
    )
    ends = [line["step"] for line in history]
    left.plot(ends, [line["train_loss"] for line in history], marker="o", color=COLOURS[0], label="train, per epoch")
    _validation(left, ends, history, "logloss", "validation")
    settled = [line["loss"] for line in steps if line["step"] > ends[0]]
    if settled:  # the fall of the first epoch would flatten everything after it
        shown = settled + [line.get("validation_logloss") or 0.0 for line in history]
        left.set_ylim(min(settled) * 0.95, max(shown) * 1.1)
    left.set(title="Loss", xlabel="optimizer step", ylabel="logloss")
    epochs = [line["epoch"] for line in history]
    right.plot(epochs, [line["train_auc"] for line in history], marker="o", color=COLOURS[0], label="train AUC")
    for name in dict.fromkeys(["auc", *([metric] if metric != "logloss" else [])]):
        _validation(right, epochs, history, name, f"validation {name.upper()}")
    right.axvline(chosen, color="#999999", linewidth=1, linestyle="--", label=f"chosen: epoch {chosen}")
    right.set(title="AUC", xlabel="epoch", ylabel="AUC")
    right.xaxis.get_major_locator().set_params(integer=True)
    for chart in (left, right):
        chart.spines[["top", "right"]].set_visible(False)
        chart.grid(alpha=0.25)
        chart.legend(frameon=False, fontsize=8)
    return figure


def _validation(
    chart: Any, places: Sequence[int], history: Sequence[Mapping[str, Any]], metric: str, label: str
) -> None:
    key = f"validation_{metric}"
    points = [(place, line[key]) for place, line in zip(places, history, strict=True) if line.get(key) is not None]
    if points:
        colour = COLOURS[1] if metric != "gauc" else COLOURS[2]
        chart.plot(*zip(*points, strict=True), marker="s", color=colour, label=label)
