"""The click scene once, from data to a scored upload: rows, encoder and network, one graph, a release, publish, the server, and the
test rows sent to it as a text file, whose scores are compared with what torch said about them offline.

Each stage is a program of its own that can be run by hand in the same order.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests

from data_exchange_center.errors import MarqueeError
from data_exchange_center.programs import run_program, running_program
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_table
from offline_to_online.demo_steps import free_port, timed, wait_until_serving, with_available_data

log = logging.getLogger("marquee")

TOLERANCE = 1e-5  # of a probability
UPLOAD_TIMEOUT_S = 300.0


def click_demo(settings: Settings) -> dict[str, Any]:
    """Runs the whole chain of the click scene.

    Args:
        settings: `data.dataset` falls back to generated rows when it cannot be had.

    Returns:
        ok, dataset, release, rows and metrics by part, parity of the exported graph, upload, check, and seconds by stage.
    """
    seconds: dict[str, float] = {}
    settings = timed(seconds, "data", with_available_data, settings)
    offline = timed(seconds, "offline", run_program, "offline/s0_run_clicks.py", [], settings)
    settings = settings.with_values(**{"serve.port": free_port(settings.serve.host, settings.serve.port)})
    with (
        running_program("online/main/s1_server.py", [], settings),
        tempfile.TemporaryDirectory(prefix="upload-", dir=Workspace(settings).root) as folder,
    ):
        published = timed(
            seconds, "publish", run_program, "offline_to_online/publish.py", ["--release", offline["release"]], settings
        )
        file = timed(seconds, "text", as_text, settings, offline["test_files"], Path(folder) / "rows")
        url = f"http://{settings.serve.host}:{settings.serve.port}"
        timed(seconds, "server", wait_until_serving, url, published["release"])
        size = file.stat().st_size
        answer, spent = timed(seconds, "upload", send, url, file)
    check = compared(answer, Path(offline["test_scores"]))
    auc = offline["metrics"]["test"]["auc"]
    upload = {
        "rows": answer["rows"],
        "mib": round(size / 2**20, 2),
        "seconds": round(spent, 3),
        "rows_per_s": round(answer["rows"] / spent),
        "auc": answer["auc"],
        "first": [row[0] for row in answer["data"][:5]],
    }
    log.info(
        "%d rows scored by release %s in %.2f s, AUC %.4f", answer["rows"], answer["release"], spent, answer["auc"]
    )
    return {
        "ok": check["ok"] and answer["release"] == published["release"] and abs(answer["auc"] - auc) <= 1e-4,
        "dataset": settings.dataset_name,
        "release": published["release"],
        **{name: offline[name] for name in ("rows", "metrics", "parity")},
        "upload": upload,
        "check": check,
        "stages_s": {**seconds, **{f"offline.{name}": spent for name, spent in offline["stages"].items()}},
    }


def as_text(settings: Settings, files: list[str], folder: Path) -> Path:
    """The files' rows as one text file in Criteo's format."""
    run_program(
        "offline/datasets/convert_rows.py", [*files, "--out", str(folder), "--to", "tsv", "--parts", "1"], settings
    )
    (file,) = folder.iterdir()
    return file


def send(url: str, file: Path) -> tuple[dict[str, Any], float]:
    """Uploads a file as any client would; returns the answer and the seconds until it was whole.

    Raises:
        MarqueeError: the server refused it; the message says why.
    """
    started = time.perf_counter()
    with file.open("rb") as content:
        response = requests.post(
            f"{url}/upload",
            params={"full": "true", "user_id": "demo"},
            files={"file": (file.name, content)},
            timeout=UPLOAD_TIMEOUT_S,
        )
    spent = time.perf_counter() - started
    if response.status_code != 200:
        raise MarqueeError(f"{url}/upload: {response.status_code}: {response.text[:500]}")
    return json.loads(response.content), spent


def compared(answer: dict[str, Any], scores: Path) -> dict[str, Any]:
    """The answer's scores against what torch gave the same rows offline."""
    expected = read_table(scores)["probability"].to_numpy()
    found = np.array(answer["data"], np.float64)[:, 0]
    if len(found) != len(expected):
        return {"ok": False, "requests": 1, "scores": len(found), "expected": len(expected), "max_abs_delta": None}
    delta = np.abs(found - expected)
    worst = float(delta.max())
    return {
        "ok": worst <= TOLERANCE,
        "requests": 1,
        "scores": len(found),
        "max_abs_delta": worst,
        "worst_row": int(delta.argmax()),
    }
