"""Training throughput: DeepFM on Criteo rows, ours against FuxiCTR, samples per CPU second and the AUC that they buy.

    python benchmarks/train.py --data <folder of the Criteo sample>      the sample repeated to 500,000 rows, about two minutes
    python benchmarks/train.py --data <folder> --rows 120000             a quicker look

39 fields (13 numbers in 40 quantile bins, 26 categories seen at least 5 times), embedding 16, MLP 400-400-400, Adam 1e-3, batches
of 4096, one pass, one thread. Parts 0 to 5 are learned from, part 7 is judged. Ours is what `offline/rank/train.py` runs: its
trainer on its cached rows, in float32 and with bf16 autocast. FuxiCTR lives in an environment of its own under --cache, made on the
first run, learns from the same encoded rows, and has them ready in memory. Each runs alone in a process of its own; they take
turns. A product of matrices alone, the step's nine, gives the floor.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.common import report
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import ROOT
from data_exchange_center.validation import validated
from offline.rank.click_data import EncodedParts, RawRows, fitted_encoder
from offline.rank.click_run import judged, new_ranker
from offline.training.config import TrainConfig
from offline.training.trainer import Trainer

log = logging.getLogger("marquee.benchmark")

PARTS, TEST = range(6), 7
HIDDEN, BATCH, RATE = [400, 400, 400], 4096, 1e-3
PEER = ["fuxictr==2.3.10", "ray"]  # installed without what they ask for: most of it serves reading and tuning
PEER_NEEDS = (
    "torch==2.13.0", "numpy==2.4.6", "pandas==2.3.3", "scikit-learn", "pyyaml", "h5py", "tqdm", "pyarrow", "polars",
    "pydantic", "click", "jsonschema", "msgpack", "packaging", "protobuf", "requests",
)  # fmt: skip


def peer_python(cache: Path) -> Path:
    """The interpreter of FuxiCTR's environment; the environment is made when it is not there."""
    folder = cache / PEER[0].replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        log.info("  installing %s into %s", PEER[0], folder)
        venv.create(folder, with_pip=True, clear=True)
        for command in (["--no-deps", *PEER], [*PEER_NEEDS]):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *command], check=True, stdout=sys.stderr)
        done.touch()
    return python


def run_config(data: Path, folder: Path, repeats: int, *, bf16: bool, seed: int, epochs: int = 1) -> TrainConfig:
    """Settings of ours, with the sample's files named again for each repetition."""
    tree: dict[str, Any] = {
        "data": {
            "folder": str(data),
            "train": [f"part-{part}.orc" for part in PARTS] * repeats,
            "test": [f"part-{TEST}.orc"],
        },
        "features": {"select": ["i*_bins", "c*", "-c*_count", "-c*_target"]},
        "model": {"options": {"fm_size": 16, "hidden": HIDDEN, "dropout": 0.0, "deep_fm": False}},
        "training": {
            "output": str(folder), "batch_size": BATCH, "save_every": 0, "seed": seed, "bf16": bf16, "epochs": epochs,
        },
    }  # fmt: skip
    return validated(TrainConfig, tree, "benchmark").with_values(
        **{f"optimizer.{part}.learning_rate": RATE for part in ("dense", "embeddings")}
    )


def parts_of(config: TrainConfig, prepared: Path) -> EncodedParts:
    """Encoded rows, by an encoder fitted on the sample as it is, not on its repetitions."""
    spec = load_spec(config.features.spec)
    once = config.with_values(**{"data.train": list(dict.fromkeys(config.data.train))})
    encoder = fitted_encoder(RawRows(once, spec), prepared)
    return EncodedParts(config, RawRows(config, spec), encoder, prepared)


def train_ours(config: TrainConfig, prepared: Path) -> dict[str, float]:
    """One pass by the product's trainer, after a few steps of another one that wake everything up."""
    parts = parts_of(config, prepared)
    rows = parts.cached("train")
    warm = Trainer(new_ranker(config, parts), config, parts.epochs(), Path(config.training.output) / "warm")
    for number, batch in zip(range(3), rows.epoch(BATCH, 0, 0), strict=False):
        log.debug("warm-up step %d", number)
        warm._step([batch])
    ranker = new_ranker(config, parts)
    trainer = Trainer(ranker, config, parts.epochs(), Path(config.training.output))
    history = trainer.train()
    made = judged(config, parts, ranker.eval(), "test").metrics
    seconds = trainer.progress
    return {
        "seconds": seconds.seconds,
        "cpu_seconds": seconds.cpu_seconds,
        "rows": len(rows),
        "train_loss": history[-1]["train_loss"],
        "auc": float(made["auc"] or math.nan),
        "logloss": float(made["logloss"] or math.nan),
    }


def write_for_peer(config: TrainConfig, prepared: Path, folder: Path) -> np.ndarray:
    """Encoded rows as arrays; returns the labels of test."""
    parts = parts_of(config, prepared)
    folder.mkdir()
    for part in ("train", "test"):
        rows = parts.cached(part)
        np.save(folder / f"{part}_ids.npy", rows.ids.numpy())
        np.save(folder / f"{part}_labels.npy", rows.labels.numpy())
    encoder = parts.encoder
    owners = [encoder.spec[name] for name in parts.cached("train").columns.ids]
    (folder / "sizes.json").write_text(json.dumps([encoder.rows[owner.name] for owner in owners]))
    return np.load(folder / "test_labels.npy")


def products_per_s(kind: torch.dtype) -> float:
    """Samples per CPU second if a step were its nine large matrix products alone."""
    torch.set_num_threads(1)
    sizes = list(zip([39 * 16, *HIDDEN], HIDDEN, strict=False))
    total = 0.0
    for size, out in sizes:
        rows, weight, gradient = (torch.randn(shape).to(kind) for shape in ((BATCH, size), (out, size), (BATCH, out)))
        for product in (lambda: rows @ weight.t(), lambda: gradient @ weight, lambda: gradient.t() @ rows):  # noqa: B023
            product()
            times = []
            for _ in range(5):
                started = time.process_time()
                product()
                times.append(time.process_time() - started)
            total += min(times)
    return BATCH / total


def in_own_process(command: list[str], **environment: str) -> dict[str, float]:
    """The JSON object that ends a program's stdout."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **one_thread, **environment}
    )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def measured(turns: list[dict[str, float]]) -> dict[str, float]:
    """The best turn's speed; AUC and losses over all turns."""
    best = min(turns, key=lambda turn: turn["cpu_seconds"] / turn["rows"])
    found: dict[str, float] = {
        "samples_per_cpu_s": round(best["rows"] / best["cpu_seconds"]),
        "samples_per_s": round(best["rows"] / best["seconds"]),
    }
    for name in ("auc", "logloss", "train_loss"):
        values = [turn[name] for turn in turns]
        found |= {name: round(float(np.mean(values)), 5), f"{name}_deviation": round(float(np.std(values)), 5)}
    return found


def compare(data: Path, rows: int, turns: int, cache: Path) -> None:
    """Lets them take turns, and reports."""
    python = peer_python(cache)
    repeats = max(1, math.ceil(rows / 60_000))
    results: dict[str, list[dict[str, float]]] = {"fp32": [], "bf16": [], "fuxictr": []}
    with tempfile.TemporaryDirectory(prefix="marquee-train-") as name:
        folder = Path(name)
        base = run_config(data, folder / "base", repeats, bf16=False, seed=0)
        labels = write_for_peer(base, folder / "prepared", folder / "peer")
        for seed in range(turns):
            for kind in ("fp32", "bf16"):
                config = run_config(data, folder / f"{kind}-{seed}", repeats, bf16=kind == "bf16", seed=seed)
                path = folder / f"{kind}-{seed}.json"
                path.write_text(json.dumps(config.model_dump(mode="json")))
                worker = [sys.executable, __file__, "--worker", str(path), "--prepared", str(folder / "prepared")]
                results[kind].append(in_own_process(worker, PYTHONPATH=str(ROOT)))
                log.info("  ours %s: %s", kind, results[kind][-1])
            worker_file = ROOT / "benchmarks" / "support" / "fuxictr_worker.py"
            command = [str(python), str(worker_file), str(folder / "peer"), str(BATCH), str(RATE), str(seed)]
            turn = in_own_process(command, PYTHONPATH="")
            predicted = np.load(folder / "peer" / "predictions.npy").astype(np.float64)
            turn |= {"auc": float(roc_auc_score(labels, predicted)), "logloss": float(log_loss(labels, predicted))}
            results["fuxictr"].append(turn)
            log.info("  fuxictr: %s", turn)
    ours = {kind: measured(results[kind]) for kind in ("fp32", "bf16")}
    peer = measured(results["fuxictr"])
    floor = {kind: round(products_per_s(one)) for kind, one in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    report(
        "train",
        ours,
        {"fuxictr": peer},
        {kind: round(one["samples_per_cpu_s"] / peer["samples_per_cpu_s"], 2) for kind, one in ours.items()},
        rows=int(results["fp32"][0]["rows"]),
        turns=turns,
        matrix_products_alone_samples_per_cpu_s=floor,
        share_of_matrix_products={kind: round(one["samples_per_cpu_s"] / floor[kind], 2) for kind, one in ours.items()},
    )


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = os.environ.get("MARQUEE_TEST_DATA")
    options.add_argument(
        "--data",
        type=Path,
        default=Path(known) / "criteo-orc" if known else None,
        help="folder of part-0.orc to part-7.orc",
    )
    options.add_argument("--rows", type=int, default=500_000, help="to which the 60,000 training rows are repeated")
    options.add_argument("--turns", type=int, default=1, help="each with another seed; the best speed counts")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "marquee"
    options.add_argument("--cache", type=Path, default=cache, help="where FuxiCTR's environment is kept")
    options.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    if given.worker:
        config = validated(TrainConfig, json.loads(given.worker.read_text()), str(given.worker))
        print(json.dumps(train_ours(config, given.prepared)))
    elif given.data is None:
        options.error("--data is needed: the folder of the Criteo sample")
    else:
        compare(given.data, given.rows, given.turns, given.cache)


if __name__ == "__main__":
    main()
