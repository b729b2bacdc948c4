"""The peer of upload.py: a file scored as it is commonly written.

The whole file through pandas.read_csv, ids parsed by a Python function, batches through the same ONNX graph, everything as one list
through jsonify. Run by upload.py; it takes the release from its environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from flask import Flask, Response, jsonify, request

from data_exchange_center.release import open_release
from data_exchange_center.scored_rows import row_form

RELEASE = "PLAIN_UPLOAD_RELEASE"
BATCH = 1024
NUMBERS = [f"i{place}" for place in range(1, 14)]
IDS = [f"c{place}" for place in range(1, 27)]


def create_app() -> Flask:
    """An application for the release whose folder the environment names."""
    release = open_release(Path(os.environ[RELEASE]))
    form = row_form(release)
    session = onnxruntime.InferenceSession(str(release.file("model/model.onnx")))
    app = Flask("plain-upload")

    @app.post("/upload")
    def upload() -> Response:
        rows = pd.read_csv(request.files["file"], sep="\t", header=None, names=["label", *NUMBERS, *IDS])
        for name in IDS:
            rows[name] = rows[name].apply(lambda text: int(text, 16) if isinstance(text, str) else -1)
        scores: list[float] = []
        for start in range(0, len(rows), BATCH):
            part = rows.iloc[start : start + BATCH]
            inputs: dict[str, Any] = {form.inputs[name]: part[name].to_numpy(np.float32) for name in NUMBERS}
            inputs |= {form.inputs[name]: part[name].to_numpy(np.int64) for name in IDS}
            scores += session.run([form.output], inputs)[0].tolist()
        return jsonify(
            {
                "code": 200,
                "dtype": "float32",
                "data": [[score] for score in scores],
                "user_id": request.args.get("user_id"),
            }
        )

    return app
