"""Which way of running a trained click ranker suits a machine: runtime, threads, batch, optimization, memory, quantization.

    python offline/rank/inference_study.py runs/criteo
    python offline/rank/inference_study.py runs/criteo --quick --output runs/criteo/inference

Every combination scores raw rows of the run, encoding included, in a process of its own. Latency of a batch (p50, p99), throughput,
rows a CPU second and memory go into study.json, study.md and study.png. int8 is also judged on the test rows: speed is not all that
it changes. Finished combinations of the same model are kept, so a study that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from onnxruntime.quantization import QuantType, quantize_dynamic
from tqdm import tqdm

from data_exchange_center.columns import LABEL
from data_exchange_center.errors import DataError, MarqueeError
from data_exchange_center.programs import last_json
from data_exchange_center.scored_rows import graph_inputs
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import atomic_path, read_json, sha256, write_json
from offline.figures import COLOURS, save_figure
from offline.rank.click_run import OpenRun, open_run
from offline.rank.export import EXPORT, EXPORTED, MODEL, export_run
from offline.rank.inference_case import Case
from offline.rank.text_table import markdown_table
from offline.training.metrics import auc, logloss

log = logging.getLogger("marquee")

CASE = ROOT / "offline" / "rank" / "inference_case.py"
ROWS = 8192  # raw rows that the cases take their batches from
TIMEOUT_S = 300.0
RUNTIMES = ("torch", "torch.compile", "onnxruntime", "onnxruntime int8")
COLUMNS = ("p50_ms", "p99_ms", "rows_per_s", "rows_per_cpu_s", "load_s", "model_mib", "peak_mib")


def inference_study(folder: Path, output: Path, *, quick: bool = False) -> dict[str, Any]:
    """Measures every case and writes table and picture.

    Args:
        folder: of a run; exported when it is not yet.
        output: folder of the results, and of each finished case.
        quick: fewer cases, shorter measurements.

    Returns:
        cases (settings and measurements, failed ones with the reason), fastest by batch, quality {float32, int8, cost},
        absent: what this machine does not have.
    """
    run, export = open_run(folder), folder / EXPORT
    if not (export / EXPORTED).exists():
        export_run(folder)
    output.mkdir(parents=True, exist_ok=True)
    quantize(export)
    table = test_rows(run)
    inputs = graph_inputs(run.rows.spec, {feature.name: feature.name for feature in run.rows.spec.inputs}, table[:ROWS])
    rows = output / "rows.npz"
    save_rows(rows, inputs)
    present, absent = devices()
    measured = []
    for case in tqdm(cases(quick, present), desc="cases", leave=False):
        measured.append(
            {**case.model_dump(), **measurement(case, export, rows, output / "cases", 0.5 if quick else 2.0)}
        )
    study = {
        "run": str(folder),
        "model": run.config.model.name,
        "rows": len(next(iter(inputs.values()))),
        "cores": len(os.sched_getaffinity(0)),
        "cases": measured,
        "fastest": fastest(measured),
        "quality": quality(export, run, table),
        "absent": absent,
    }
    write_json(output / "study.json", study)
    with atomic_path(output / "study.md") as temporary:
        temporary.write_text(markdown(study), encoding="utf-8")
    save_figure(output / "study.png", picture_of(measured))
    return study


def cases(quick: bool, present: Sequence[str]) -> list[Case]:
    """What is measured: runtimes by batch and threads, then each other switch alone, around a batch of 512 on one thread."""
    cores = len(os.sched_getaffinity(0))
    batches = (1, 512) if quick else (1, 32, 512, 4096)
    threads = (1,) if quick or cores == 1 else (1, cores)
    found = [
        Case(runtime=runtime, batch=batch, threads=count)
        for runtime in RUNTIMES
        for batch in batches
        for count in threads
        if not (quick and runtime == "torch.compile" and batch == 1)  # compiling takes a minute each time
    ]
    found += [
        Case(runtime="torch", onednn=False),
        Case(arena=False),
        Case(pattern=False),
        Case(arena=False, pattern=False),
    ]
    found += [Case(optimization=level) for level in (("none",) if quick else ("none", "basic", "extended"))]
    for device in present:
        runtimes = ("torch", "onnxruntime") if device == "cuda" else ("onnxruntime",)
        found += [Case(runtime=runtime, device=device, batch=batch) for runtime in runtimes for batch in batches]
    return found


def devices() -> tuple[list[str], dict[str, str]]:
    """Devices beyond the CPU that this machine has, and what is missing for the others."""
    providers = ort.get_available_providers()
    absent = {}
    if not torch.cuda.is_available() or "CUDAExecutionProvider" not in providers:
        absent["cuda"] = (
            f"torch sees {torch.cuda.device_count()} GPUs; onnxruntime was built with {', '.join(providers)}"
        )
    if "TensorrtExecutionProvider" not in providers:
        absent["tensorrt"] = "onnxruntime was built without it"
    if "DnnlExecutionProvider" not in providers:
        absent["onednn of onnxruntime"] = "onnxruntime was built without it; torch's is measured"
    return [device for device in ("cuda", "tensorrt") if device not in absent], absent


def measurement(case: Case, export: Path, rows: Path, done: Path, seconds: float) -> dict[str, Any]:
    """What a process of its own measured, or why it could not; kept for the same case of the same model."""
    order = {"folder": str(export), "rows": str(rows), "seconds": seconds, "case": case.model_dump()}
    key = json.dumps([case.model_dump(), seconds, sha256(export / MODEL), CASE.read_text(encoding="utf-8")])
    kept = done / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if kept.exists():
        return dict(read_json(kept))
    threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, str(CASE), json.dumps(order)]
    try:
        ended = subprocess.run(
            command, env=os.environ | threads, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {TIMEOUT_S:.0f} s"}
    result = last_json(ended.stdout)
    if result is None:
        return {"failed": f"exit status {ended.returncode}: {ended.stderr.strip().rpartition(chr(10))[2][:300]}"}
    if "failed" not in result:
        write_json(kept, result)
    return result


def quantize(export: Path) -> Path:
    """`model.int8.onnx`: weights of matrix products as int8, activations quantized as they come."""
    target = export / "model.int8.onnx"
    if not target.exists() or target.stat().st_mtime_ns < (export / MODEL).stat().st_mtime_ns:
        with atomic_path(target) as temporary:
            quantize_dynamic(export / MODEL, temporary, weight_type=QuantType.QInt8)
    return target


def test_rows(run: OpenRun) -> pa.Table:
    """The run's test rows, or validation rows where it has none.

    Raises:
        DataError: it has neither.
    """
    for part in ("test", "validation"):
        if run.config.data.paths(part):
            return pa.Table.from_batches(list(run.rows.part(part, ROWS)))
    raise DataError("the run has no test and no validation rows to study its inference on", field="data.test")


def save_rows(path: Path, inputs: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as .npz without pickling: texts as fixed-width strings."""
    plain = {name: values.astype(str) if values.dtype == object else values for name, values in inputs.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **plain)


def quality(export: Path, run: OpenRun, table: pa.Table) -> dict[str, Any]:
    """AUC and logloss of both precisions on the test rows, and what int8 costs; empty when the rows have no labels."""
    if LABEL not in table.column_names:
        return {}
    exported = read_json(export / EXPORTED)
    output = next(iter(exported["outputs"].values()))
    labels = table[LABEL].to_numpy()
    given = graph_inputs(run.rows.spec, exported["inputs"], table)
    found: dict[str, dict[str, float]] = {}
    for name, file in (("float32", MODEL), ("int8", "model.int8.onnx")):
        scores = ort.InferenceSession(export / file, providers=["CPUExecutionProvider"]).run([output], given)[0]
        found[name] = {"auc": auc(labels, scores), "logloss": logloss(labels, scores)}
    cost = {name: found["int8"][name] - found["float32"][name] for name in found["int8"]}
    return {**found, "cost": cost, "rows": len(labels)}


def fastest(measured: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Batch -> the case of the shortest median, in words."""
    found = {}
    for batch in sorted({one["batch"] for one in measured}):
        whole = [one for one in measured if one["batch"] == batch and "failed" not in one]
        if whole:
            found[str(batch)] = told(min(whole, key=lambda one: one["p50_ms"]))
    return found


def told(one: Mapping[str, Any]) -> str:
    """A case in words: runtime, threads, and what differs from the defaults."""
    plain = Case().model_dump()
    differs = [
        f"{name} {'on' if one[name] is True else 'off' if one[name] is False else one[name]}"
        for name in ("device", "onednn", "optimization", "arena", "pattern")
        if one[name] != plain[name]
    ]
    return ", ".join([one["runtime"], f"{one['threads']} thread{'s' if one['threads'] > 1 else ''}", *differs])


def markdown(study: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    rows = []
    for one in sorted(study["cases"], key=lambda one: one["batch"]):
        values = ["–" for _ in COLUMNS] if "failed" in one else [f"{one[name]:,}" for name in COLUMNS]
        rows.append([told(one) + (" (failed)" if "failed" in one else ""), str(one["batch"]), *values])
    lines = [
        f"# Inference of {study['model']}",
        "",
        f"Raw rows to probabilities, encoding included, on {study['cores']} cores; each line in a process of its own.",
        "",
        markdown_table(["case", "batch", *COLUMNS], rows),
    ]
    lines += [
        f"Failed: {told(one)}, batch {one['batch']}: {one['failed']}" for one in study["cases"] if "failed" in one
    ]
    if study["quality"]:
        cost = study["quality"]["cost"]
        lines += ["", f"int8 changes AUC by {cost['auc']:+.5f} and logloss by {cost['logloss']:+.5f}."]
    lines += ["", *(f"Not on this machine: {name} ({why})." for name, why in study["absent"].items()), ""]
    return "\n".join(lines)


def picture_of(measured: Sequence[Mapping[str, Any]]) -> Figure:
    """Median latency by batch on the left, what each case needs of memory and gives in rows a second on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.2), layout="constrained")
    plain = Case().model_dump()
    whole = [one for one in measured if "failed" not in one]
    for place, runtime in enumerate(RUNTIMES):
        for threads in sorted({one["threads"] for one in whole}):
            line = [
                one
                for one in whole
                if (one["runtime"], one["threads"]) == (runtime, threads)
                and all(one[name] == plain[name] for name in ("device", "onednn", "optimization", "arena", "pattern"))
            ]
            if line:
                label = runtime if threads == 1 else f"{runtime}, {threads} threads"
                style = {"color": COLOURS[place], "marker": "o", "linestyle": "-" if threads == 1 else "--"}
                left.plot([one["batch"] for one in line], [one["p50_ms"] for one in line], label=label, **style)
    left.set(xscale="log", yscale="log", xlabel="rows in a batch", ylabel="median ms", title="Latency of a batch")
    left.legend(frameon=False, fontsize=8)
    around = [one for one in whole if one["batch"] == plain["batch"]]
    around.sort(key=lambda one: one["rows_per_s"])
    places = np.arange(len(around))
    right.barh(places, [one["rows_per_s"] for one in around], color=COLOURS[0], alpha=0.85)
    right.set_yticks(places, [told(one) for one in around], fontsize=7)
    for bar, one in enumerate(around):
        right.text(one["rows_per_s"], bar, f" {one['model_mib']:.0f} MiB", va="center", fontsize=7)
    right.set(xlabel="rows a second (memory of the model beside the bar)", title=f"Batches of {plain['batch']}")
    right.margins(x=0.18)
    for chart in (left, right):
        chart.spines[["top", "right"]].set_visible(False)
        chart.grid(alpha=0.25)
    return figure


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    folder = Path(arguments.run).expanduser()
    output = Path(arguments.output).expanduser() if arguments.output else folder / "inference"
    study = inference_study(folder, output, quick=arguments.quick)
    print(markdown(study), file=sys.stderr)
    if all("failed" in one for one in study["cases"]):
        raise MarqueeError(f"no case could be measured; the first says: {study['cases'][0]['failed']}")
    failed = [f"{told(one)}, batch {one['batch']}: {one['failed']}" for one in study["cases"] if "failed" in one]
    shown = {name: study[name] for name in ("run", "model", "cores", "fastest", "quality", "absent")}
    files = {
        "table": str(output / "study.md"),
        "json": str(output / "study.json"),
        "picture": str(output / "study.png"),
    }
    return {**shown, "cases": len(study["cases"]), "failed": failed, **files}


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    options = parser(__doc__ or "", common=[])
    options.add_argument("run", help="folder of a run of offline/rank/train.py")
    options.add_argument("--output", help="folder of the results (default: inference/ in the run)")
    options.add_argument("--quick", action="store_true", help="fewer cases, shorter measurements")
    run_step("rank/inference_study", options, _step, argv)


if __name__ == "__main__":
    main()
