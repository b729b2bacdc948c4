"""Pictures: one look for all of them, drawn without a display."""

from __future__ import annotations

import io
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
