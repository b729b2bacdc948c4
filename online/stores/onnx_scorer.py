"""`Scorer` in process, by onnxruntime: one folder per release, one thread a request, several releases open side by side.

<store>/online/models/<release>/   model.onnx and model.json (its checksum and that of the feature spec)
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from data_exchange_center.errors import DataError, StoreError, StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, atomic_folder, read_json, sha256, write_json
from online.stores.lru import OpenReleases
from online.stores.model_inputs import ModelInput, check_outputs, checked_inputs, declared_input
from online.stores.ports import Scorer

META = "model.json"
MODEL = "model.onnx"
WARM_UP = (1, 300, 300)  # candidates of the warm-up's requests


def open_scorer(settings: Settings, url: str) -> Scorer:
    """The adapter on the store's folder."""
    return OnnxScorer(Workspace(settings).online / "models")


@dataclass(frozen=True)
class OpenModel:
    """One release's model, ready to score."""

    session: onnxruntime.InferenceSession
    inputs: tuple[ModelInput, ...]
    outputs: tuple[str, ...]
    fingerprint: dict[str, str]

    def score(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, float32 [N]."""
        inputs, candidates = checked_inputs(self.inputs, given)
        if not candidates:
            return {name: np.empty(0, np.float32) for name in self.outputs}
        try:
            values = self.session.run(self.outputs, inputs)
        except Exception as error:  # onnxruntime's own exceptions share no other base
            raise StoreError(f"the model failed: {error}") from error
        for name, value in zip(self.outputs, values, strict=True):
            if value.shape != (candidates,):
                raise StoreError(
                    f"model output {name!r}: expected shape [{candidates}], got {list(value.shape)}", field=name
                )
        return dict(zip(self.outputs, values, strict=True))


class OnnxScorer(Scorer):
    """See the module's docstring."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OpenReleases[OpenModel] = OpenReleases(self._opened)

    def score(self, release: str, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        if timeout <= 0:
            raise StoreUnavailable("embedded scorer: no time left to ask")
        return self._open.get(release).score(inputs)

    def load(self, release: Release) -> None:
        folder = self._folder / release.id
        promised = {
            "model_sha256": release.manifest["files"]["model/model.onnx"]["sha256"],
            "feature_spec_sha256": release.manifest["feature_spec_sha256"],
        }
        kept = (folder / MODEL).is_file() and sha256(folder / MODEL) == promised["model_sha256"]
        if not kept or read_meta(folder) != promised:
            self.drop(release.id)
            with atomic_folder(folder) as temporary:
                shutil.copyfile(release.file("model/model.onnx"), temporary / MODEL)
                write_json(temporary / META, promised)
        check_outputs(release, self._open.get(release.id).outputs)

    def ready(self, release: str, timeout: float) -> bool:
        try:
            self._open.get(release)
        except StoreError:
            return False
        return True

    def fingerprint(self, release: str, timeout: float) -> dict[str, str]:
        return self._open.get(release).fingerprint

    def releases(self) -> list[str]:
        return sorted(
            path.parent.name for path in self._folder.glob(f"*/{META}") if not path.parent.name.startswith(".")
        )

    def drop(self, release: str) -> None:
        self._open.forget(release)
        folder = self._folder / release
        if folder.exists():
            retired = folder.with_name(f".{release}.dropped")
            shutil.rmtree(retired, ignore_errors=True)
            folder.rename(retired)
            shutil.rmtree(retired)

    def ping(self, timeout: float) -> None:
        """It is in process: it answers."""

    def close(self) -> None:
        self._open.clear()

    def _opened(self, release: str) -> OpenModel:
        folder = self._folder / release
        meta = read_meta(folder)
        if meta is None:
            raise StoreUnavailable(f"{folder}: no model of this release; publish it")
        content = (folder / MODEL).read_bytes() if (folder / MODEL).is_file() else b""
        actual = hashlib.sha256(content).hexdigest()
        if actual != meta["model_sha256"]:
            raise StoreError(
                f"{folder / MODEL}: checksum is {actual}, promised {meta['model_sha256']}; publish it again"
            )
        model = open_model(content, meta)
        for candidates in WARM_UP:
            model.score({wanted.name: wanted.example(candidates) for wanted in model.inputs})
        return model


def open_model(content: bytes, meta: dict[str, str]) -> OpenModel:
    """A session on one thread: workers and their threads are the parallelism, and spinning pools would eat their cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no other base
        raise StoreError(
            f"model of feature spec {meta['feature_spec_sha256'][:12]}: not a usable ONNX file: {error}"
        ) from error
    inputs = tuple(declared_input(given.name, given.type, given.shape) for given in session.get_inputs())
    return OpenModel(session, inputs, tuple(given.name for given in session.get_outputs()), meta)


def read_meta(folder: Path) -> dict[str, Any] | None:
    """`model.json`, or None when there is no readable one."""
    try:
        meta: dict[str, Any] = read_json(folder / META)
    except DataError:
        return None
    return meta
