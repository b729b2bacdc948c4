"""The release's report: one HTML page with its pictures inside, that opens anywhere without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from data_exchange_center.workspace import atomic_path
from offline.figures import COLOURS, axes, calibration_figure, picture

TEMPLATE = "report.html.j2"


def write_report(
    folder: Path, title: str, manifest: Mapping[str, Any], ranking: Mapping[str, Any], recall: Mapping[str, Any]
) -> Path:
    """Writes `report.html` and the pictures beside it.

    Args:
        folder: made when it is not there.
        title: the release's id.
        manifest: data window, rows, parity.
        ranking: `rank/evaluation.json`: rank, curves, calibration, score_histogram, importance, presets.
        recall: `recall/<cut>/evaluation.json`: channels, union, popularity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "recall": recall_figure(recall),
        "epochs": epochs_figure(ranking.get("curves", {}).get("epochs", [])),
        "calibration": calibration_figure(ranking.get("calibration", []), "Calibration of like, test rows"),
        "scores": scores_figure(ranking.get("score_histogram", {})),
        "importance": importance_figure(ranking.get("importance", [])),
    }
    pictures = {name: picture(figure) for name, figure in figures.items() if figure is not None}
    for name, data in pictures.items():
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(data)
    target = folder / "report.html"
    write_page(
        target,
        TEMPLATE,
        title=title,
        manifest=manifest,
        rank=ranking["rank"],
        presets=ranking.get("presets", []),
        channels=recall.get("recall", {}),
        union=recall.get("union", {}),
        pictures={name: base64.b64encode(data).decode() for name, data in pictures.items()},
    )
    return target


def write_page(target: Path, template: str, **values: Any) -> None:
    """Fills in a template of this folder, atomically; a value that the template misses is an error."""
    loader = jinja2.FileSystemLoader(Path(__file__).resolve().parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = lambda value: f"{value:.4f}" if isinstance(value, float) else value
    page = environment.get_template(template).render(**values)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")


def recall_figure(recall: Mapping[str, Any]) -> Figure | None:
    """Recall at 50, 100 and 200 by channel."""
    channels = {name: values for name, values in recall.get("recall", {}).items() if "r50" in values}
    if not channels:
        return None
    figure, chart = axes("Recall of held-out positives, by channel", "items retrieved", "recall")
    for (name, values), colour in zip(channels.items(), COLOURS * 2, strict=False):
        cuts = [cut for cut in (50, 100, 200) if f"r{cut}" in values]
        chart.plot(cuts, [values[f"r{cut}"] for cut in cuts], marker="o", label=name, color=colour)
    chart.set_xticks([50, 100, 200])
    chart.set_ylim(0, 1)
    chart.legend(frameon=False, fontsize=9)
    return figure


def epochs_figure(epochs: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The judged fit: train loss and the validation metric that picked the epoch, one panel per head."""
    panels = {"like": ("validation_auc", "validation AUC"), "choose": ("validation_ndcg50", "validation nDCG@50")}
    judged = {
        head: [entry for entry in epochs if entry["fit"] == "judged" and entry["head"] == head and metric in entry]
        for head, (metric, _) in panels.items()
    }
    heads = [head for head, entries in judged.items() if entries]
    if not heads:
        return None
    figure, charts = plt.subplots(1, len(heads), figsize=(5.2 * len(heads), 3.8), squeeze=False, layout="constrained")
    for chart, head in zip(charts[0], heads, strict=True):
        metric, label = panels[head]
        numbers = [entry["epoch"] for entry in judged[head]]
        losses = [entry["train_loss"] for entry in judged[head]]
        chart.plot(numbers, losses, marker="o", color=COLOURS[0], label="train loss")
        if head == "like":
            later = [entry["validation_loss"] for entry in judged[head]]
            chart.plot(numbers, later, marker="o", color=COLOURS[1], label="validation loss")
        right = chart.twinx()
        right.plot(numbers, [entry[metric] for entry in judged[head]], marker="s", color=COLOURS[2], label=label)
        chart.set(title=f"Epochs of {head}", xlabel="epoch", ylabel="loss", xticks=numbers)
        chart.spines["top"].set_visible(False)
        right.spines["top"].set_visible(False)
        lines = [*chart.get_lines(), *right.get_lines()]
        chart.legend(lines, [line.get_label() for line in lines], frameon=False, fontsize=8, loc="center right")
    return figure


def scores_figure(histogram: Mapping[str, Any]) -> Figure | None:
    """Distribution of the `like` probability over positive and negative test rows."""
    if not histogram:
        return None
    figure, chart = axes("Scores of test rows", "like", "share of rows")
    edges = histogram["edges"]
    for key, colour in (("positive", COLOURS[2]), ("negative", COLOURS[4])):
        total = sum(histogram[key]) or 1
        chart.stairs([count / total for count in histogram[key]], edges, fill=True, alpha=0.45, color=colour, label=key)
    chart.legend(frameon=False, fontsize=9)
    return figure


def importance_figure(importance: Sequence[Mapping[str, Any]], largest: int = 20) -> Figure | None:
    """AUC lost on the test rows when a feature's values are shuffled."""
    if not importance:
        return None
    top = sorted(importance, key=lambda entry: entry["auc_drop"])[-largest:]
    figure, chart = axes("Permutation importance", "AUC lost when shuffled", "")
    figure.set_size_inches(6.4, 0.6 + 0.26 * len(top))
    chart.barh([entry["feature"] for entry in top], [entry["auc_drop"] for entry in top], color=COLOURS[0])
    chart.tick_params(axis="y", labelsize=8)
    return figure
