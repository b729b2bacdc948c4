"""Releases that a proof checks against, and the offline side's model of each."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from data_exchange_center.input_blocks import blocks_of_release, pack_inputs
from data_exchange_center.programs import run_program
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from offline_to_online.rank.comparison import Score
from tests.factories import make_release, make_settings

PATIENCE_MS = 60_000.0  # of a request: a busy machine must not look like a store that is away
SMALL = {"data.synthetic_users": 300, "data.synthetic_items": 400, "data.synthetic_events": 20_000, "rank.epochs": 2}


def reference_release(folder: Path, *, tiny: bool, users: int = 60, items: int = 150) -> tuple[Settings, Release]:
    """A release in a store of its own below `folder`, and the settings that go with it.

    Args:
        tiny: without training, of this many users and items; else trained on a small generated log by the offline stages, in
            a process of their own.
    """
    settings = make_settings(folder, **{"serve.budget_ms": PATIENCE_MS, "serve.log_answers": False})
    if tiny:
        return settings, make_release(folder, users=users, items=items, settings=settings)
    settings = settings.with_values(**{"data.dataset": "synthetic", **SMALL})
    run_program("offline/s0_run_offline.py", ["--quiet"], settings)
    return settings, find_release(settings)


def offline_score(release: Release) -> Score:
    """The offline side's model: torch where the release was trained, else the graph itself."""
    if "model/network.safetensors" in release.manifest["files"]:
        from offline.rank.torch_scorer import load_torch_scorer  # torch takes seconds to import

        return load_torch_scorer(release)
    session = onnxruntime.InferenceSession(str(release.file("model/model.onnx")), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    blocks = blocks_of_release(release)
    return lambda inputs: dict(zip(names, session.run(names, pack_inputs(blocks, inputs)), strict=True))
