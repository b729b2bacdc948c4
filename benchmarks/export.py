"""Every architecture of the zoo exported, and compared with torch on 10,000 rows with unseen, missing and extreme values.

    python benchmarks/export.py                       Criteo's features, fitted on the sample, fetched
    python benchmarks/export.py --data /data/criteo   a local copy
    python benchmarks/export.py --models dcnv2 ffm

The networks have random weights, all away from zero, so that no part of a graph can be wrong and hide behind a zero. One that
needs a sequence ranks in a small scene that has one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from tqdm import tqdm

from benchmarks.common import machine
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.rows.schema import schema_of
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline.datasets.criteo import find_clicks
from offline.models.numbers import HEADS
from offline.models.ranker import Ranker, config_for
from offline.models.registry import FILES
from offline.rank.export import MODEL, ORDER, ROWS, TOLERANCE, Names, parity_with_torch
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.graph_export import export_graph
from offline.reading.reader import RowReader
from offline.training.ctr_data import fit_ctr_encoder
from offline_to_online.demo_steps import with_available_data
from tests.unit.models.tiny_scene import tiny_encoder

AIM = 1e-6
NEEDS_SEQUENCE = {"din"}
MOVED = 0.05  # deviation of what is added to every weight


def benchmark(settings: Settings, names: Sequence[str], rows: int) -> dict[str, Any]:
    """Exports and compares each model.

    Returns:
        name, machine, rows, models {name: max_abs_delta, max_logit_delta, seconds}, max_abs_delta over all, worst, and whether
        all stay within the bar and the aim.
    """
    settings = with_available_data(settings)
    encoder = click_encoder(settings)
    models: dict[str, dict[str, Any]] = {}
    for name in tqdm(names, desc="models", leave=False):
        started = time.perf_counter()
        own = tiny_encoder() if name in NEEDS_SEQUENCE else encoder
        ranker = network(name, own, HEADS if name in NEEDS_SEQUENCE else ("like",))
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            parity = compared(ranker, own, Path(folder), rows)
        models[name] = {**parity, "scene": own.spec.scene, "seconds": round(time.perf_counter() - started, 2)}
    worst = max(models, key=lambda name: models[name]["max_abs_delta"])
    largest = models[worst]["max_abs_delta"]
    return {
        "name": "export",
        "machine": machine(),
        "ok": largest <= TOLERANCE,
        "rows": rows,
        "models": models,
        "max_abs_delta": largest,
        "max_logit_delta": max(model["max_logit_delta"] for model in models.values()),
        "worst": worst,
        "within": {"1e-5": largest <= TOLERANCE, "1e-6": largest <= AIM},
    }


def click_encoder(settings: Settings) -> FittedEncoder:
    """Criteo's features, fitted on the first file of training rows."""
    spec = load_spec(settings.features.spec)
    files = find_clicks(settings).train[:1]
    return fit_ctr_encoder(spec, lambda: RowReader(files, schema_of(spec), batch_size=8192))


def network(name: str, encoder: FittedEncoder, heads: tuple[Any, ...]) -> Ranker:
    """An untrained network with every weight away from zero."""
    torch.manual_seed(0)
    ranker = Ranker(encoder.spec, config_for(name, "default", encoder.rows, 1, encoder.id_types, heads)).eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(torch.randn_like(parameter) * MOVED)
    return ranker


def compared(ranker: Ranker, encoder: FittedEncoder, folder: Path, rows: int) -> dict[str, Any]:
    """Exports to a folder and compares."""
    ranker.save(folder)
    encoder.save(folder)
    onnx.save(export_graph(ranker, encoder), folder / MODEL)
    inputs = {feature.name: feature.name for feature in encoder.spec.inputs}
    parity = parity_with_torch(folder, encoder, Names(inputs, {name: name for name in ORDER}), rows)
    return {name: parity[name] for name in ("max_abs_delta", "max_logit_delta")}


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.set_defaults(dataset="criteo")
    arguments.add_argument("--models", nargs="+", choices=FILES, default=list(FILES), help="architectures")
    arguments.add_argument("--rows", type=int, default=ROWS, help="of the comparison")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return benchmark(settings, parsed.models, parsed.rows)

    run_step("export", arguments, step, argv)


if __name__ == "__main__":
    main()
