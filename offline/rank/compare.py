"""Trains several models on the same rows and compares them in one table and one picture.

    python offline/rank/compare.py --config docs/examples/criteo.yaml --models lr fm deepfm dcnv2 --seeds 3 --output runs/compare
    python offline/rank/compare.py --config docs/examples/criteo.yaml --models deepfm deepfm:guo --output runs/deepfm
    python offline/rank/compare.py --config docs/examples/criteo.yaml --variants variants.yaml --output runs/variants

A model is a name of the registry, or name:preset. A variants file maps a name to the settings that differ:

    wide: {model.name: deepfm, model.options: {hidden: [400, 400]}}
    slow: {model.name: deepfm, optimizer.dense.learning_rate: 0.0003}

Each model's epoch is picked on validation, and so is the model that the others are compared with, unless --against names it; test
rows decide nothing. Intervals are 95 % bootstrap over the test rows, of the mean over seeds; differences are paired: both models on
the same resamples. Finished models are not trained again, so a comparison that was cut off goes on where it was, and a further
model is added by calling it with a longer list.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.settings import Settings
from data_exchange_center.step import run_step
from data_exchange_center.workspace import atomic_path, write_json
from offline.figures import COLOURS, save_figure
from offline.rank.click_run import PREDICTIONS
from offline.rank.click_runs import Trained, train_all
from offline.rank.click_scores import load_scores
from offline.rank.text_table import markdown_table, number
from offline.rank.train import config_of, config_parser
from offline.training.bootstrap import RESAMPLES, auc_statistic, bootstrapped, interval, logloss_statistic, paired
from offline.training.config import TrainConfig

STATISTICS = {"auc": auc_statistic, "logloss": logloss_statistic}
PROTOCOL = (
    "Epochs and the reference model were picked on validation; test rows were judged once and decided nothing. "
    "[low, high]: 95 % bootstrap over the test rows, of the mean over seeds; differences are paired."
)


def compare_models(
    config: TrainConfig,
    variants: Mapping[str, Mapping[str, Any]],
    output: Path,
    *,
    seeds: int = 1,
    against: str = "",
    count: int = RESAMPLES,
) -> dict[str, Any]:
    """Trains what is not trained yet, and compares.

    Args:
        config: what all have in common; with validation and test rows.
        variants: name -> dotted settings that differ.
        against: the variant that the others are compared with; the best on validation when empty.
        count: resamples.

    Returns:
        `models`: a list, best on validation first; `reference`; `failed`: messages by name; files written.

    Raises:
        SettingsError: settings that no model can be trained with, or `against` names none of them.
        DataError: no model could be trained.
    """
    for part in ("validation", "test"):
        if not config.data.paths(part):
            raise SettingsError(f"a comparison needs data.{part}", field=f"data.{part}")
    if against and against not in variants:
        raise SettingsError(f"--against {against!r}: it is none of {', '.join(variants)}", field="against")
    configs = {name: config.with_values(**changes) for name, changes in variants.items()}
    metrics = {one.training.metric for one in configs.values()}
    metric = metrics.pop() if len(metrics) == 1 else config.training.metric
    trained, failed = train_all(configs, output, seeds, metric)
    names = [one.name for one in trained]
    reference = against if against in names else names[0]
    drawn = {name: _resampled(trained, name, count) for name in STATISTICS}
    models = [_row(one, place, names.index(reference), drawn) for place, one in enumerate(trained)]
    result = {
        "models": models,
        "reference": reference,
        "picked_by": f"validation {metric}" if not against else "the caller",
        "protocol": PROTOCOL,
        "seeds": seeds,
        "failed": failed,
    }
    table = comparison_table(models, reference, seeds)
    write_json(output / "comparison.json", result)
    with atomic_path(output / "comparison.md") as temporary:
        temporary.write_text(f"{table}\n{PROTOCOL}\n", encoding="utf-8")
    save_figure(output / "comparison.png", comparison_figure(models, reference))
    return result | {"table": str(output / "comparison.md"), "picture": str(output / "comparison.png")}


def _resampled(trained: Sequence[Trained], statistic: str, count: int) -> np.ndarray:
    """A statistic of every model on the test rows (first column) and on the same resamples of them, mean over seeds.

    float64 [models, 1 + count].
    """
    found = [[load_scores(folder / PREDICTIONS / "test.parquet") for folder in one.folders] for one in trained]
    labels = found[0][0][0]
    if any(not np.array_equal(given, labels) for seeds in found for given, _ in seeds):
        raise DataError("the models were judged on different rows; compare them in a new output folder")
    statistics = [STATISTICS[statistic](labels, probabilities) for seeds in found for _, probabilities in seeds]
    drawn = bootstrapped(statistics, len(labels), count)
    return drawn.reshape(len(trained), -1, drawn.shape[-1]).mean(1)


def _row(one: Trained, place: int, reference: int, drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": one.name,
        "chosen_epochs": [result["chosen_epoch"] for result in one.results],
        "train_loss": one.mean("train_loss"),
        "train_auc": one.mean("metrics", "train", "auc"),
        "validation_auc": one.mean("metrics", "validation", "auc"),
        "validation_logloss": one.mean("metrics", "validation", "logloss"),
    }
    for name, values in drawn.items():
        each = [result["metrics"]["test"][name] for result in one.results]
        row[f"test_{name}"] = interval(values[place]).to_json()
        row[f"test_{name}_seeds_std"] = float(np.std(each, ddof=1)) if len(each) > 1 and None not in each else None
        row[f"test_{name}_minus_reference"] = paired(values[place], values[reference]).to_json()
    return row | {
        "parameters": one.results[0]["parameters"],
        "samples_per_s": one.mean("samples_per_s"),
        "samples_per_cpu_s": one.mean("samples_per_cpu_s"),
        "seconds": one.mean("train_seconds"),
    }


def comparison_table(models: Sequence[Mapping[str, Any]], reference: str, seeds: int) -> str:
    """The models as Markdown."""
    header = ["model", "train loss", "train AUC", "validation AUC", "test AUC", "test logloss", f"AUC − {reference}"]
    header += ["parameters", "samples/s", "seconds", *(["± seeds (AUC)"] if seeds > 1 else [])]
    rows = [
        [
            one["name"],
            number(one["train_loss"]),
            number(one["train_auc"]),
            number(one["validation_auc"]),
            _between(one["test_auc"], 3, 4),
            _between(one["test_logloss"], 3, 4),
            "" if one["name"] == reference else _between(one["test_auc_minus_reference"], 3, 4),
            f"{one['parameters']:,}",
            f"{one['samples_per_s']:,.0f}",
            number(one["seconds"], 1),
            *([number(one["test_auc_seeds_std"])] if seeds > 1 else []),
        ]
        for one in models
    ]
    return markdown_table(header, rows)


def _between(one: Mapping[str, float], bounds: int, places: int) -> str:
    return f"{number(one['value'], places)} [{number(one['low'], bounds)}, {number(one['high'], bounds)}]"


def comparison_figure(models: Sequence[Mapping[str, Any]], reference: str) -> Figure:
    """Test AUC, test logloss and the paired difference of AUC, each with its interval; best on validation at the top."""
    panels = {
        "test_auc": "test AUC",
        "test_logloss": "test logloss",
        "test_auc_minus_reference": f"test AUC − {reference}, paired",
    }
    height = 1.4 + 0.34 * len(models)
    figure, charts = plt.subplots(1, 3, figsize=(13, height), sharey=True, layout="constrained")
    places = np.arange(len(models))[::-1]
    for chart, (key, title) in zip(charts, panels.items(), strict=True):
        for place, one in zip(places, models, strict=True):
            colour = COLOURS[1] if one["name"] == reference else COLOURS[0]
            chart.plot([one[key]["low"], one[key]["high"]], [place, place], color=colour, linewidth=2)
            chart.plot(one[key]["value"], place, marker="o", color=colour)
        chart.set_title(title, fontsize=10)
        chart.spines[["top", "right"]].set_visible(False)
        chart.grid(alpha=0.25)
    charts[2].axvline(0, color="#999999", linewidth=1, linestyle="--")
    charts[0].set_yticks(places, [one["name"] for one in models])
    charts[0].set_ylim(-0.6, len(models) - 0.4)
    return figure


def variants_of(models: Sequence[str], path: str = "") -> dict[str, dict[str, Any]]:
    """Variants by name: from `name` or `name:preset`, and from a YAML file.

    Raises:
        SettingsError: the file cannot be read, or a name is given twice or holds a slash.
    """
    variants: dict[str, dict[str, Any]] = {}
    named = [(model.replace(":", "-"), _model_of(model)) for model in models]
    for name, changes in [*named, *_variants_in(path)]:
        if name in variants or not name or "/" in name or name.startswith(".") or name == "prepared":
            raise SettingsError(f"model {name!r}: names must differ and be names of folders", field="models")
        variants[name] = changes
    if not variants:
        raise SettingsError("nothing to compare: give --models or --variants", field="models")
    return variants


def _model_of(text: str) -> dict[str, Any]:
    name, _, preset = text.partition(":")
    return {"model.name": name, "model.preset": preset} if preset else {"model.name": name}


def _variants_in(path: str) -> list[tuple[str, dict[str, Any]]]:
    if not path:
        return []
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{path}: not readable YAML: {error}", field="variants") from error
    if not isinstance(tree, dict) or not all(isinstance(changes, dict) for changes in tree.values()):
        raise SettingsError(f"{path}: write `name: {{setting: value}}` for each variant", field="variants")
    return [(str(name), {str(key): value for key, value in changes.items()}) for name, changes in tree.items()]


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    config = config_of(arguments, f"training.output={arguments.output}")
    variants = variants_of(arguments.models, arguments.variants)
    output = Path(arguments.output)
    result = compare_models(config, variants, output, seeds=arguments.seeds, against=arguments.against)
    if not arguments.quiet:
        print((output / "comparison.md").read_text(encoding="utf-8"), file=sys.stderr)
    return result | {"ok": not result["failed"]}


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = config_parser(__doc__ or "")
    arguments.add_argument("--models", nargs="+", default=[], help="names of the registry, or name:preset")
    arguments.add_argument("--variants", default="", help="YAML of named variants, beside or instead of --models")
    arguments.add_argument("--seeds", type=int, default=1, help="runs of each model")
    arguments.add_argument("--against", default="", help="model to compare with; the best on validation when not given")
    arguments.add_argument("--output", required=True, help="folder of the runs, the table and the picture")
    run_step("rank/compare", arguments, _step, argv)


if __name__ == "__main__":
    main()
