"""The scorer on Triton over gRPC: every request names the release's own version, and readiness is the version's.

Publishing needs the model repository's folder as this machine sees it; scoring needs the server alone, and learns from the
models' configurations which version a release is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from data_exchange_center.errors import SettingsError, StoreError, StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from online.stores.model_inputs import ModelInput, checked_inputs
from online.stores.ports import Scorer
from online.stores.triton_tensors import infer_request, read_outputs
from online.stores.triton_versions import Version, inputs_in, outputs_in, versions_in

LOAD_TIMEOUT = 120.0  # seconds until a server has loaded a version and run it once
READ_TIMEOUT = 10.0  # seconds for calls outside of requests
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
CHANNEL = (
    ("grpc.enable_retries", 0),  # a late answer is no answer, and a server in trouble must not get the load twice
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # the default of two minutes would outlast any restart
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


def open_scorer(settings: Settings, url: str) -> Scorer:
    """The adapter for a URL."""
    folder = settings.stores.triton_repository
    return TritonScorer(url, Path(folder) if folder else None, settings.stores.ca_file)


@dataclass(frozen=True)
class Served:
    """A release's model as the server has it loaded."""

    version: Version
    inputs: tuple[ModelInput, ...]
    outputs: tuple[str, ...]


class TritonScorer(Scorer):
    """Scorer on one Triton address.

    Args:
        url: grpc://host:port, or grpcs:// for TLS.
        repository: the folder that Triton serves models from; None where nothing is published.
        ca_file: PEM file of the authority that signed the server's certificate; "" for the system's.
    """

    def __init__(self, url: str, repository: Path | None = None, ca_file: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or not parts.port:
            raise SettingsError(f"stores.scorer: {url!r} is not grpc(s)://host:port", field="stores.scorer")
        target = f"{parts.hostname}:{parts.port}"
        if parts.scheme == "grpcs":
            authority = Path(ca_file).read_bytes() if ca_file else None
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(authority), CHANNEL)
        else:
            self._channel = grpc.insecure_channel(target, CHANNEL)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._repository = repository
        self._known: dict[str, Served] = {}

    def score(self, release: str, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        deadline = time.monotonic() + timeout
        served = self._known.get(release) or self._resolve(release, timeout)
        given, candidates = checked_inputs(served.inputs, inputs)
        if not candidates:
            return {name: np.empty(0, np.float32) for name in served.outputs}
        request = infer_request(served.version.model, served.version.number, given)
        try:
            with _errors(f"score with release {release}"):
                outputs = read_outputs(self._stub.ModelInfer(request, timeout=_left(deadline)))
        except StoreUnavailable:
            raise
        except StoreError:
            self._known.pop(release, None)  # the release may have come back as another version
            raise
        for name in served.outputs:
            if name not in outputs or outputs[name].shape != (candidates,):
                raise StoreError(
                    f"Triton, release {release}: {name!r} is not an output of shape [{candidates}]", field=name
                )
        return {name: outputs[name] for name in served.outputs}

    def load(self, release: Release) -> None:
        # imports onnx, which only publishing needs
        from online.stores.triton_repository import ModelRepository

        version = ModelRepository(self._folder()).add(release)
        self._load(version.model)
        if not self._version_ready(version, READ_TIMEOUT):
            raise StoreError(f"Triton loaded {version.model}, but version {version.number} is not ready; see its log")

    def ready(self, release: str, timeout: float) -> bool:
        try:
            deadline = time.monotonic() + timeout
            return self._version_ready(self._resolve(release, timeout).version, _left(deadline))
        except StoreError:
            return False

    def fingerprint(self, release: str, timeout: float) -> dict[str, str]:
        version = self._resolve(release, timeout).version
        return {"model_sha256": version.model_sha256, "feature_spec_sha256": version.feature_spec_sha256}

    def releases(self) -> list[str]:
        return sorted(self._served(READ_TIMEOUT))

    def drop(self, release: str) -> None:
        from online.stores.triton_repository import ModelRepository

        repository = ModelRepository(self._folder())
        self._known.pop(release, None)
        removed = repository.remove(release)
        if removed is None:
            return
        version, keeps_others = removed
        if keeps_others:
            self._load(version.model)
        else:
            with _errors(f"unload {version.model}"):
                unload = pb.RepositoryModelUnloadRequest(model_name=version.model)
                self._stub.RepositoryModelUnload(unload, timeout=LOAD_TIMEOUT)
        repository.clean(version, keeps_others)

    def ping(self, timeout: float) -> None:
        with _errors("ping"):
            # not ServerReady: that stays false after any model failed to load, while the others answer
            live = self._stub.ServerLive(pb.ServerLiveRequest(), timeout=timeout).live
        if not live:
            raise StoreUnavailable("Triton is not live")

    def close(self) -> None:
        self._channel.close()

    def _folder(self) -> Path:
        if self._repository is None:
            raise SettingsError(
                "stores.triton_repository is not set: publishing writes models into the folder that Triton serves them from",
                field="stores.triton_repository",
            )
        return self._repository

    def _load(self, model: str) -> None:
        """Explicit load over gRPC: over HTTP it would block the server's other clients."""
        with _errors(f"load {model}"):
            self._stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=model), timeout=LOAD_TIMEOUT)

    def _version_ready(self, version: Version, timeout: float) -> bool:
        with _errors("ask whether a model is ready"):
            request = pb.ModelReadyRequest(name=version.model, version=str(version.number))
            return bool(self._stub.ModelReady(request, timeout=timeout).ready)

    def _resolve(self, release: str, timeout: float) -> Served:
        served = self._served(timeout)
        if release not in served:
            self._known.pop(release, None)
            raise StoreUnavailable(f"Triton serves no model of release {release}; publish it")
        self._known[release] = served[release]
        return served[release]

    def _served(self, timeout: float) -> dict[str, Served]:
        """What the server has loaded, by release."""
        if timeout <= 0:
            raise StoreUnavailable("Triton: no time left to ask")
        deadline = time.monotonic() + timeout
        found: dict[str, Served] = {}
        with _errors("list the models"):
            index = self._stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=timeout)
            for model in sorted({entry.name for entry in index.models}):
                request = pb.ModelConfigRequest(name=model)
                config = self._stub.ModelConfig(request, timeout=_left(deadline)).config
                if versions := versions_in(config):
                    inputs, outputs = inputs_in(config), outputs_in(config)
                    found |= {release: Served(version, inputs, outputs) for release, version in versions.items()}
        return found


def _left(deadline: float) -> float:
    """Seconds until a deadline.

    Raises:
        StoreUnavailable: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise StoreUnavailable("Triton: no time left to ask")
    return left


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """gRPC's errors as the port's."""
    try:
        yield
    except grpc.RpcError as error:
        status, details = error.code(), error.details()
        if status in GONE:
            raise StoreUnavailable(f"Triton cannot be reached or is too slow: {doing}: {details}") from error
        raise StoreError(f"Triton, {doing}: {details}") from error
