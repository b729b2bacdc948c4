"""Step 2 of the ranking sync: the model of a release into the scorer, and its answers compared with the file's own.

Works on whichever scorer `stores.scorer` names: Triton, or onnxruntime in process. Other versions stay loaded beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_exchange_center.errors import StoreError
from data_exchange_center.input_blocks import blocks_of_release, pack_inputs
from data_exchange_center.release import Release, find_release
from data_exchange_center.scored_rows import SAMPLE as SAMPLE_ROWS
from data_exchange_center.scored_rows import sample_inputs
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.lock import publish_lock
from offline_to_online.profiles import sample_rows
from offline_to_online.rank.offline_reference import OfflineReference
from online.stores.onnx_scorer import open_model
from online.stores.open import open_scorer
from online.stores.ports import Scorer

SAMPLE = 20  # users whose candidates are scored both ways
CANDIDATES = 100
TOLERANCE = 1e-5
READ_TIMEOUT_S = 30.0


def load_model(release: Release, scorer: Scorer) -> dict[str, Any]:
    """Makes the model ready; returns `bytes` and `load_seconds`."""
    started = time.perf_counter()
    scorer.load(release)
    seconds = round(time.perf_counter() - started, 3)
    return {"bytes": release.manifest["files"]["model/model.onnx"]["bytes"], "load_seconds": seconds}


def verify_model(release: Release, scorer: Scorer, sample: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """Scores the same rows by the scorer and by the release's own file, opened here: candidates of random users, or the rows
    that a scorer release keeps for this.

    Returns:
        verified: scores compared; max_abs_delta: the largest difference of any output.

    Raises:
        StoreError: the version is not ready, was made from another model or feature spec, or a score differs by more than
            `TOLERANCE`.
    """
    promised = {
        "model_sha256": str(release.manifest["files"]["model/model.onnx"]["sha256"]),
        "feature_spec_sha256": str(release.manifest["feature_spec_sha256"]),
    }
    if not scorer.ready(release.id, READ_TIMEOUT_S):
        raise StoreError(f"scorer: the model of release {release.id} is not ready")
    held = scorer.fingerprint(release.id, READ_TIMEOUT_S)
    if held != promised:
        raise StoreError(f"scorer: release {release.id} is served from {held}, the release says {promised}")
    own = open_model(release.file("model/model.onnx").read_bytes(), promised)
    compared, worst = 0, 0.0
    for told, inputs in rows_to_compare(release, sample, seed):
        expected, found = own.score(inputs), scorer.score(release.id, inputs, READ_TIMEOUT_S)
        for name, values in expected.items():
            delta = np.abs(values - found[name])
            worst, compared = max(worst, float(delta.max())), compared + len(delta)
            if not delta.max() <= TOLERANCE:
                row = told[int(np.argmax(delta))]
                raise StoreError(
                    f"scorer: {name} of {row} differs by {delta.max():.3g} from the release's own model", field=name
                )
    return {"verified": compared, "max_abs_delta": worst}


def rows_to_compare(release: Release, sample: int, seed: int) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """(each row in words, inputs of the graph) of each request to compare."""
    if release.kind == "scorer":
        inputs = sample_inputs(release)
        count = len(next(iter(inputs.values())))
        yield [f"row {row} of {SAMPLE_ROWS}" for row in range(count)], inputs
        return
    reference = OfflineReference(release)
    blocks = blocks_of_release(release)
    items = sample_rows(len(reference.item_ids), CANDIDATES, seed)
    candidates = [reference.item_ids[row] for row in items]
    for row in sample_rows(len(reference.user_ids), sample, seed):
        user = reference.user_ids[row]
        told = [f"user {user!r} and item {item!r}" for item in candidates]
        inputs = reference.inputs(user, candidates, reference.last_timestamp(user) + 1)
        yield told, pack_inputs(blocks, inputs)


def sync_model(settings: Settings, release_id: str = "") -> dict[str, Any]:
    """Loads and verifies one release (the newest one by default)."""
    release = find_release(settings, release_id)
    with publish_lock(settings, f"s2_model_to_triton {release.id}"):
        scorer = open_scorer(settings)
        try:
            return {"release": release.id, **load_model(release, scorer), **verify_model(release, scorer)}
        finally:
            scorer.close()


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.add_argument("--release", default="", help="a release's id (default: the newest)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return sync_model(settings, parsed.release)

    run_step("s2_model_to_triton", arguments, step, argv)


if __name__ == "__main__":
    main()
