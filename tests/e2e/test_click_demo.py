"""The click scene's demo on generated rows: every program of the scene, from rows to an upload that scores as torch did."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_exchange_center.programs import run_program
from data_exchange_center.workspace import Workspace
from online.stores import embedded_redis
from tests.e2e.test_serving import free_port
from tests.factories import make_settings

pytestmark = pytest.mark.e2e


def test_from_generated_rows_to_a_scored_upload(tmp_path: Path) -> None:
    small = {"data.dataset": "criteo-synthetic", "data.synthetic_clicks": 4000, "serve.port": free_port()}
    settings = make_settings(tmp_path, **small)
    try:
        done = run_program("offline_to_online/demo.py", ["--quiet"], settings, timeout=300)
    finally:
        embedded_redis.stop(Workspace(settings).online)
    assert done["ok"]
    assert done["upload"]["rows"] == done["rows"]["test"] == 500
    assert done["check"]["max_abs_delta"] <= 1e-5
    assert done["upload"]["auc"] == pytest.approx(done["metrics"]["test"]["auc"], abs=1e-4)
    assert not list(Workspace(settings).root.glob("upload-*")), "the text file was removed"
