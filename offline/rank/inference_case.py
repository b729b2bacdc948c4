"""One measurement of the inference study, in a process of its own so that memory is its own and no setting leaks into the next.

    python offline/rank/inference_case.py '{"folder": "…/export", "rows": "…/rows.npz", "seconds": 1.0, "case": {…}}'

Prints one JSON object. What a case needs is imported when it is known: a process that runs onnxruntime alone never loads torch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from data_exchange_center.errors import MarqueeError
from data_exchange_center.validation import Section, validated

LEAST_RUNS, WARM_UP = 20, 5
BATCHES = 8  # different ones that take turns
Inputs = Mapping[str, np.ndarray]
Run = Callable[[Inputs], np.ndarray]


class Case(Section):
    """How a batch of raw rows becomes probabilities.

    Attributes:
        runtime: torch and torch.compile encode by the encoder's graph, as training does; onnxruntime runs the exported graph, int8
            the same with weights of matrix products quantized.
        onednn: torch's own switch. optimization, arena, pattern: those of onnxruntime.
    """

    runtime: Literal["torch", "torch.compile", "onnxruntime", "onnxruntime int8"] = "onnxruntime"
    device: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    threads: int = Field(1, ge=1)
    batch: int = Field(512, ge=1)
    onednn: bool = True
    optimization: Literal["none", "basic", "extended", "all"] = "all"
    arena: bool = True
    pattern: bool = True


class Order(Section):
    """What the process is told.

    Attributes:
        folder: of the export. rows: raw rows by feature, .npz. seconds: to measure for.
    """

    folder: str
    rows: str
    seconds: float = Field(gt=0)
    case: Case


def measure(order: Order) -> dict[str, Any]:
    """Latency, throughput, CPU and memory of a case.

    Returns:
        p50_ms, p99_ms, rows_per_s, rows_per_cpu_s, load_s, runs; peak_mib of the process; model_mib: what that grew by since
        before the model was loaded.
    """
    case, folder = order.case, Path(order.folder)
    content = np.load(order.rows, allow_pickle=False)
    rows = {name: content[name] for name in content.files}
    rows = {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in rows.items()}
    batches = [
        {
            name: np.resize(np.roll(values, -turn * case.batch, 0), (case.batch, *values.shape[1:]))
            for name, values in rows.items()
        }
        for turn in range(BATCHES)
    ]
    import_runtime(case)
    before = _memory("VmRSS")
    started = time.perf_counter()
    run = torch_run(folder, case) if case.runtime.startswith("torch") else onnx_run(folder, case)
    run(batches[0])
    loaded = time.perf_counter() - started
    for place in range(WARM_UP):
        run(batches[place % len(batches)])
    spent: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    while len(spent) < LEAST_RUNS or time.perf_counter() - began < order.seconds:
        started = time.perf_counter()
        run(batches[len(spent) % len(batches)])
        spent.append(time.perf_counter() - started)
    total, used = time.perf_counter() - began, time.process_time() - cpu
    peak = _memory("VmHWM")  # not ru_maxrss: that begins with the peak of the process that started this one
    return {
        "p50_ms": round(float(np.percentile(spent, 50)) * 1000, 4),
        "p99_ms": round(float(np.percentile(spent, 99)) * 1000, 4),
        "rows_per_s": round(case.batch * len(spent) / total),
        "rows_per_cpu_s": round(case.batch * len(spent) / max(used, 1e-9)),
        "load_s": round(loaded, 3),
        "peak_mib": round(peak, 1),
        "model_mib": round(peak - before, 1),
        "runs": len(spent),
    }


def import_runtime(case: Case) -> None:
    """Loads the libraries, which are not what a model's memory is."""
    if case.runtime.startswith("torch"):
        import offline.rank.torch_scorer  # noqa: F401
    else:
        import onnxruntime  # noqa: F401


def torch_run(folder: Path, case: Case) -> Run:
    """Encoder and network as training has them."""
    import torch

    from offline.rank.feature_encoding import run_encoder_once
    from offline.rank.torch_scorer import TorchScorer

    torch.set_num_threads(case.threads)
    scorer = TorchScorer(folder)
    device = torch.device(case.device)
    ranker = scorer.ranker.to(device)
    network: Any = torch.compile(ranker, dynamic=False) if case.runtime == "torch.compile" else ranker

    def run(inputs: Inputs) -> np.ndarray:
        encoded = run_encoder_once(scorer.encoder, inputs)
        given = {name: torch.from_numpy(array).to(device) for name, array in encoded.items()}
        with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=case.onednn):
            return np.asarray(network(given)[1].cpu())

    return run


def onnx_run(folder: Path, case: Case) -> Run:
    """The exported graph."""
    import onnxruntime as ort

    levels = {
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
    options.graph_optimization_level = levels[case.optimization]
    options.enable_cpu_mem_arena, options.enable_mem_pattern = case.arena, case.pattern
    providers = {
        "cpu": ["CPUExecutionProvider"],
        "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
        "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    }[case.device]
    file = "model.int8.onnx" if case.runtime == "onnxruntime int8" else "model.onnx"
    session = ort.InferenceSession(folder / file, options, providers=providers)
    exported = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    names, (output, *_) = exported["inputs"], exported["outputs"].values()

    def run(inputs: Inputs) -> np.ndarray:
        return np.asarray(session.run([output], {names[name]: values for name, values in inputs.items()})[0])

    return run


def _memory(field: str) -> float:
    """MiB, of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    """Prints the measurement, or `{"failed": why}`: a case that this machine cannot run is a result too."""
    order = validated(Order, json.loads(sys.argv[1]), "the order")
    try:
        made = measure(order)
    except (MarqueeError, RuntimeError, OSError, ValueError, ImportError) as error:
        made = {"failed": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}
    print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()
