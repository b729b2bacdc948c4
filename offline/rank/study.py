"""Trains one model over a grid of settings: a table, best on validation first, and a picture of what each setting does.

    python offline/rank/study.py --config docs/examples/criteo.yaml --output runs/study \\
        --grid 'optimizer.dense.learning_rate=[0.0003,0.001,0.003]' 'training.batch_size=[512,2048]'
    python offline/rank/study.py --config docs/examples/criteo.yaml --output runs/layers \\
        --grid 'model.options.hidden=[[64,32],[400,400],[400,400,400]]' 'optimizer.dense.name=[adam,adagrad]' --seeds 2

Every combination of the values is trained, with every seed. Finished ones are not trained again: a study that was cut off goes on,
and one that is called with more values adds to what is there. The best is chosen by validation alone; what it then does on test
rows, when the settings name any, is reported for it and for nothing else, so that nobody chooses by it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import Settings
from data_exchange_center.step import run_step
from data_exchange_center.workspace import atomic_path, write_json
from offline.figures import COLOURS, save_figure
from offline.rank.click_runs import Trained, train_all
from offline.rank.text_table import markdown_table, number
from offline.rank.train import config_of, config_parser
from offline.training.config import TrainConfig, digest, parsed
from offline.training.trainer import BETTER

CURVES = 6  # runs whose epochs are drawn
Grid = Mapping[str, Sequence[Any]]


def study(config: TrainConfig, grid: Grid, output: Path, *, seeds: int = 1) -> dict[str, Any]:
    """Trains what is not trained yet, and ranks by validation.

    Args:
        config: what all have in common; with validation rows.
        grid: dotted setting -> its values.

    Returns:
        `runs`: a list, best on validation first; `best`: its settings and metrics, test included; `failed`: messages.

    Raises:
        SettingsError: a setting of the grid does not exist, or there are no validation rows. DataError: nothing could be trained.
    """
    if not config.data.validation:
        raise SettingsError("a study chooses by validation: it needs data.validation", field="data.validation")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    named = {digest(point): point for point in points}
    variants = {name: config.with_values(**point) for name, point in named.items()}
    metric = config.training.metric
    trained, failed = train_all(variants, output, seeds, metric)
    runs = [_row(one, named[one.name]) for one in trained]
    best = {"settings": runs[0]["settings"], "folders": [str(folder) for folder in trained[0].folders]}
    if config.data.test:
        best["test"] = {name: trained[0].mean("metrics", "test", name) for name in ("auc", "logloss")}
    result = {
        "runs": runs,
        "best": best,
        "picked_by": f"validation {metric}",
        "seeds": seeds,
        "failed": {json.dumps(named[name]): message for name, message in failed.items()},
    }
    write_json(output / "study.json", result)
    with atomic_path(output / "study.md") as temporary:
        temporary.write_text(f"{study_table(runs, list(grid))}\n{_closing(result)}\n", encoding="utf-8")
    save_figure(output / "study.png", study_figure(trained, runs, grid, metric))
    return result | {"table": str(output / "study.md"), "picture": str(output / "study.png")}


def _row(one: Trained, point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "settings": dict(point),
        "validation_auc": one.mean("metrics", "validation", "auc"),
        "validation_logloss": one.mean("metrics", "validation", "logloss"),
        "train_loss": one.mean("train_loss"),
        "train_auc": one.mean("metrics", "train", "auc"),
        "chosen_epochs": [result["chosen_epoch"] for result in one.results],
        "samples_per_s": one.mean("samples_per_s"),
        "seconds": one.mean("train_seconds"),
    }


def _closing(result: Mapping[str, Any]) -> str:
    text = (
        f"Chosen by {result['picked_by']}, mean over {result['seeds']} seeds: {json.dumps(result['best']['settings'])}."
    )
    if "test" in result["best"]:
        text += " Test rows, looked at for the chosen settings only: "
        text += ", ".join(f"{name} {number(value)}" for name, value in result["best"]["test"].items()) + "."
    return text


def study_table(runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """The combinations as Markdown, without test metrics."""
    header = ["rank", *(_short(key) for key in keys), "validation AUC", "validation logloss", "train loss", "train AUC"]
    rows = [
        [
            str(place),
            *(json.dumps(one["settings"][key]) for key in keys),
            *(number(one[name]) for name in ("validation_auc", "validation_logloss", "train_loss", "train_auc")),
            ", ".join(map(str, one["chosen_epochs"])),
            f"{one['samples_per_s']:,.0f}",
            number(one["seconds"], 1),
        ]
        for place, one in enumerate(runs, 1)
    ]
    return markdown_table([*header, "epoch", "samples/s", "seconds"], rows)


def _short(key: str) -> str:
    """The last names of a dotted setting, enough to know it by."""
    return ".".join(key.split(".")[-2:])


def study_figure(trained: Sequence[Trained], runs: Sequence[Mapping[str, Any]], grid: Grid, metric: str) -> Figure:
    """One panel per setting (every run a point, the best of each value joined), and the epochs of the best runs."""
    panels = [key for key, values in grid.items() if len(values) > 1]
    figure, charts = plt.subplots(
        1, len(panels) + 1, figsize=(4.2 * (len(panels) + 1), 3.8), squeeze=False, layout="constrained"
    )
    sign, name = BETTER[metric], f"validation {metric if metric == 'logloss' else metric.upper()}"
    measured = [
        (one["settings"], trained[place].mean("metrics", "validation", metric)) for place, one in enumerate(runs)
    ]
    for chart, key in zip(charts[0], panels, strict=False):
        best = []
        for place, value in enumerate(grid[key]):
            found = [score for settings, score in measured if settings[key] == value and score is not None]
            chart.plot([place] * len(found), found, linestyle="", marker="o", color="#b8c7d6")
            best.append(sign * max((sign * score for score in found), default=float("nan")))
        chart.plot(range(len(best)), best, marker="o", color=COLOURS[0], label="best of the value")
        chart.set_xticks(range(len(best)), [json.dumps(value) for value in grid[key]], fontsize=8)
        chart.set(title=_short(key), ylabel=name)
        chart.margins(x=0.15)
        chart.legend(frameon=False, fontsize=8)
    last = charts[0][-1]
    for one, run, colour in zip(trained[:CURVES], runs, COLOURS, strict=False):
        history = one.results[0]["history"]
        label = ", ".join(json.dumps(run["settings"][key]) for key in panels) or "the run"
        values = [line[f"validation_{metric}"] for line in history]
        last.plot([line["epoch"] for line in history], values, marker="o", markersize=3, color=colour, label=label)
    last.set(title=f"epochs of the best {min(CURVES, len(runs))}, first seed", xlabel="epoch", ylabel=name)
    last.xaxis.get_major_locator().set_params(integer=True)
    last.legend(frameon=False, fontsize=7, title=", ".join(_short(key) for key in panels), title_fontsize=7)
    for chart in charts[0]:
        chart.spines[["top", "right"]].set_visible(False)
        chart.grid(alpha=0.25)
    return figure


def grid_of(given: Sequence[str]) -> dict[str, list[Any]]:
    """`key=[a,b]` each -> key -> values.

    Raises:
        SettingsError: not of that form, a key twice, or a value twice.
    """
    grid: dict[str, list[Any]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        found = parsed(values) if equals else None
        if not isinstance(found, list) or not found or key in grid or not key:
            raise SettingsError(f"--grid {text!r}: write each setting once, as key=[value,value]", field="grid")
        if len({json.dumps(value) for value in found}) < len(found):
            raise SettingsError(f"--grid {text!r}: a value stands twice", field="grid")
        grid[key] = found
    return grid


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    config = config_of(arguments, f"training.output={arguments.output}")
    output = Path(arguments.output)
    result = study(config, grid_of(arguments.grid), output, seeds=arguments.seeds)
    if not arguments.quiet:
        print((output / "study.md").read_text(encoding="utf-8"), file=sys.stderr)
    return result | {"ok": not result["failed"]}


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = config_parser(__doc__ or "")
    arguments.add_argument("--grid", nargs="+", required=True, metavar="KEY=[VALUES]", help="settings and their values")
    arguments.add_argument("--seeds", type=int, default=1, help="runs of each combination")
    arguments.add_argument("--output", required=True, help="folder of the runs, the table and the picture")
    run_step("rank/study", arguments, _step, argv)


if __name__ == "__main__":
    main()
