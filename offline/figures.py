"""Pictures: one look for all of them, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from data_exchange_center.workspace import atomic_path

COLOURS = ("#2f5d8a", "#d9822b", "#3d8f5f", "#8a4f7d", "#b0413e", "#6b6b6b")


def picture(figure: Figure) -> bytes:
    """PNG bytes; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    """One plain chart."""
    figure, chart = plt.subplots(figsize=(6.4, 3.8))
    chart.set_title(title, fontsize=11)
    chart.set_xlabel(x)
    chart.set_ylabel(y)
    chart.spines[["top", "right"]].set_visible(False)
    chart.grid(alpha=0.25)
    return figure, chart


def save_figure(path: Path, figure: Figure) -> None:
    """Writes a PNG atomically and closes the figure."""
    data = picture(figure)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def calibration_figure(bins: Sequence[Mapping[str, Any]], title: str) -> Figure | None:
    """Predicted against observed rates; the size of a point tells its rows.

    Args:
        bins: of `offline.training.metrics.calibration_curve`.
    """
    if not bins:
        return None
    figure, chart = axes(title, "predicted", "observed")
    predicted, observed = ([entry[name] for entry in bins] for name in ("predicted", "observed"))
    largest, limit = max(entry["rows"] for entry in bins), min(1.0, 1.1 * max(*predicted, *observed, 1e-3))
    chart.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    chart.plot(predicted, observed, color=COLOURS[0])
    chart.scatter(predicted, observed, s=[20 + 120 * entry["rows"] / largest for entry in bins], color=COLOURS[0])
    chart.set_xlim(0, limit)
    chart.set_ylim(0, limit)
    return figure
