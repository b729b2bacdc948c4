"""Training throughput: DeepFM on Criteo rows, ours against FuxiCTR, samples per CPU second and the AUC that they buy.

    python benchmarks/train.py --data <folder of the Criteo sample>      the sample repeated to 500,000 rows, about four minutes
    python benchmarks/train.py --data <folder> --rows 120000             a quicker look

39 fields (13 numbers in 40 quantile bins, 26 categories seen at least 5 times), embedding 16, MLP 400-400-400, Adam 1e-3, batches
of 4096, one pass, one thread. Parts 0 to 5 are learned from, part 7 is judged. Ours is what `offline/rank/train.py` runs: its
trainer on its cached rows, in float32 and, on a CPU that multiplies bfloat16, with bf16 autocast. FuxiCTR lives in an environment
of its own under --cache, made on the first run, learns from the same encoded rows, and has them ready in memory. Each runs alone in
a process of its own; they take turns, and the best turn's speed counts. For comparison: the nine products of matrices that a step
takes when the first layer multiplies every row's embeddings, alone. Ours multiplies each of a batch's ids once there.

That the speed costs no AUC is shown turn by turn: with a turn's seed all begin with the same weights, drawn as FuxiCTR draws them
(embeddings.deviation 1e-4, model.initializer xavier_normal), and see the same rows in the same order. The difference of AUC on
the rows of part 7, mean over turns, has a paired bootstrap interval.
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
from torch import Tensor, nn

from benchmarks.common import report
from data_exchange_center.errors import NotReady
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import ROOT
from data_exchange_center.validation import validated
from offline.models.kernels import multiplies_bf16
from offline.rank.click_data import EncodedParts, RawRows, fitted_encoder
from offline.rank.click_run import judged, new_ranker
from offline.training.bootstrap import auc_statistic, bootstrapped, paired
from offline.training.config import TrainConfig
from offline.training.metrics import auc, logloss
from offline.training.trainer import Trainer

log = logging.getLogger("marquee.benchmark")

PARTS, TEST = range(6), 7
PREDICTIONS = "predicted.npy"
INSTALL_S = 1800
HIDDEN, BATCH, RATE = [400, 400, 400], 4096, 1e-3
PEER = ["fuxictr==2.3.10", "ray==2.60.0"]  # installed without what they ask for: most of it serves reading and tuning
PEER_NEEDS = (
    "torch==2.13.0", "numpy==2.4.6", "pandas==2.3.3", "scikit-learn", "pyyaml", "h5py", "tqdm", "pyarrow", "polars",
    "pydantic", "click", "jsonschema", "msgpack", "packaging", "protobuf", "requests",
)  # fmt: skip
AS_EQUAL = 0.005  # of AUC: what two seeds differ by; an interval within it, or around zero, is no difference


def peer_python(cache: Path) -> Path:
    """The interpreter of FuxiCTR's environment; the environment is made when it is not there.

    Raises:
        NotReady: it cannot be made; pip's last words are in the message.
    """
    folder = cache / PEER[0].replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python
    log.info("  installing %s into %s, once", PEER[0], folder)
    try:
        venv.create(folder, with_pip=True, clear=True)
        for packages in (["--no-deps", *PEER], [*PEER_NEEDS]):
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(command, check=True, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        lines = [line for line in str(said).strip().splitlines() if line.startswith("ERROR")] or [str(error)]
        raise NotReady(
            f"{PEER[0]} could not be installed into {folder}: {lines[-1]}; the package index must be reachable "
            "(PIP_INDEX_URL names another), and --cache a folder with 2 GiB free"
        ) from error
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
        "model": {
            "options": {"fm_size": 16, "hidden": HIDDEN, "dropout": 0.0, "deep_fm": False}, "initializer": "xavier_normal",
        },
        "embeddings": {"initializer": "normal", "deviation": 1e-4},
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
    scores = judged(config, parts, ranker.eval(), "test")
    np.save(Path(config.training.output) / PREDICTIONS, scores.probabilities)
    seconds = trainer.progress
    return {
        "seconds": seconds.seconds,
        "cpu_seconds": seconds.cpu_seconds,
        "rows": len(rows),
        "train_loss": history[-1]["train_loss"],
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
    (folder / "sizes.json").write_text(json.dumps([encoder.rows[name] for name in owners(parts)]))
    return np.load(folder / "test_labels.npy")


def owners(parts: EncodedParts) -> list[str]:
    """Features whose tables the columns of ids look up."""
    return [parts.encoder.spec[name].name for name in parts.cached("train").columns.ids]


def write_beginning(config: TrainConfig, prepared: Path, folder: Path) -> None:
    """What a seed decides, for the peer: the weights that ours begins with and the order of its rows."""
    parts, seed = parts_of(config, prepared), config.training.seed
    member = new_ranker(config, parts).member(0)
    weights: dict[str, Tensor] = {}
    for place, owner in enumerate(owners(parts)):
        rows = member.trunk.tables.of(owner)
        weights[f"field-{place}"] = torch.cat([torch.zeros(1, rows.shape[1]), rows])
    layers = [layer for layer in member.heads["like"].modules() if isinstance(layer, nn.Linear)]
    for place, layer in enumerate(layers):
        weights |= {f"weight-{place}": layer.weight, f"bias-{place}": layer.bias}
    np.savez(folder / f"initial-{seed}.npz", **{name: tensor.detach().numpy() for name, tensor in weights.items()})  # type: ignore[arg-type]
    np.save(folder / f"order-{seed}.npy", parts.cached("train").epoch(BATCH, seed, 1).order())


def products_per_s(kind: torch.dtype) -> float:
    """Samples per CPU second if a step were nine large matrix products alone, a layer's three for each of three."""
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


def measured(turns: list[dict[str, float]], labels: np.ndarray, predicted: list[np.ndarray]) -> dict[str, float]:
    """The best turn's speed; AUC and losses over all turns."""
    best = min(turns, key=lambda turn: turn["cpu_seconds"] / turn["rows"])
    found: dict[str, float] = {
        "samples_per_cpu_s": round(best["rows"] / best["cpu_seconds"]),
        "samples_per_s": round(best["rows"] / best["seconds"]),
    }
    each = {
        "auc": [auc(labels, one) for one in predicted],
        "logloss": [logloss(labels, one) for one in predicted],
        "train_loss": [turn["train_loss"] for turn in turns],
    }
    for name, values in each.items():
        found |= {name: round(float(np.mean(values)), 5), f"{name}_deviation": round(float(np.std(values)), 5)}
    return found


def difference(labels: np.ndarray, ours: list[np.ndarray], peer: list[np.ndarray]) -> dict[str, Any]:
    """AUC of ours minus the peer's on the same rows, mean over turns, with its interval; and whether there is any."""
    drawn = bootstrapped([auc_statistic(labels, one) for one in [*ours, *peer]], len(labels))
    found = paired(drawn[: len(ours)].mean(0), drawn[len(ours) :].mean(0))
    around, within = found.low <= 0 <= found.high, max(-found.low, found.high) <= AS_EQUAL
    return {name: round(value, 5) for name, value in found.to_json().items()} | {"equal": around or within}


def compare(data: Path, rows: int, turns: int, cache: Path) -> None:
    """Lets them take turns, and reports."""
    python = peer_python(cache)
    repeats = max(1, math.ceil(rows / 60_000))
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if multiplies_bf16() else {})
    results: dict[str, list[dict[str, float]]] = {name: [] for name in [*kinds, "fuxictr"]}
    predicted: dict[str, list[np.ndarray]] = {name: [] for name in results}
    with tempfile.TemporaryDirectory(prefix="marquee-train-") as name:
        folder = Path(name)
        peer_folder, prepared = folder / "peer", folder / "prepared"
        labels = write_for_peer(run_config(data, folder / "base", repeats, bf16=False, seed=0), prepared, peer_folder)
        for seed in range(turns):
            for kind in kinds:
                config = run_config(data, folder / f"{kind}-{seed}", repeats, bf16=kind == "bf16", seed=seed)
                path = folder / f"{kind}-{seed}.json"
                path.write_text(json.dumps(config.model_dump(mode="json")))
                worker = [sys.executable, __file__, "--worker", str(path), "--prepared", str(prepared)]
                results[kind].append(in_own_process(worker, PYTHONPATH=str(ROOT)))
                predicted[kind].append(np.load(Path(config.training.output) / PREDICTIONS))
                log.info("  ours %s: %s", kind, results[kind][-1])
            write_beginning(config, prepared, peer_folder)
            worker_file = ROOT / "benchmarks" / "support" / "fuxictr_worker.py"
            command = [str(python), str(worker_file), str(peer_folder), str(BATCH), str(RATE), str(seed)]
            results["fuxictr"].append(in_own_process(command, PYTHONPATH=""))
            predicted["fuxictr"].append(np.load(peer_folder / f"predictions-{seed}.npy").astype(np.float64))
            log.info("  fuxictr: %s", results["fuxictr"][-1])
    found = {kind: measured(results[kind], labels, predicted[kind]) for kind in results}
    peer = found.pop("fuxictr")
    floor = {kind: round(products_per_s(one)) for kind, one in kinds.items()}
    report(
        "train",
        found,
        {"fuxictr": peer},
        {kind: round(one["samples_per_cpu_s"] / peer["samples_per_cpu_s"], 2) for kind, one in found.items()},
        auc_difference={kind: difference(labels, predicted[kind], predicted["fuxictr"]) for kind in found},
        rows=int(results["fp32"][0]["rows"]),
        turns=turns,
        matrix_products_alone_samples_per_cpu_s=floor,
        share_of_matrix_products={
            kind: round(one["samples_per_cpu_s"] / floor[kind], 2) for kind, one in found.items()
        },
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
    options.add_argument("--turns", type=int, default=3, help="each with another seed; the best speed counts")
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
        try:
            compare(given.data, given.rows, given.turns, given.cache)
        except NotReady as error:
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
