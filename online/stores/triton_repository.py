"""Triton's model repository on disk: which release is which version of which model.

    <repository>/<scene>-<signature>/config.pbtxt       generated from the graph; `parameters` say which version each release is
    <repository>/<scene>-<signature>/<version>/model.onnx

A release's graph is a version, counted from 1, of the model of its scene. All versions of a model share one configuration,
so the model's name ends with a hash of the graph's inputs and outputs: a release whose features differ begins another model
beside the old one. The mapping from release to version lies in the configuration itself, where the server's clients read it
over gRPC; what the configuration does not list is not loaded. Every write is a rename.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from data_exchange_center.errors import ReleaseError, StoreError
from data_exchange_center.release import Release
from data_exchange_center.workspace import atomic_folder, atomic_path, sha256
from online.stores.model_inputs import check_outputs
from online.stores.triton_versions import PREFIX, Version, versions_in

CONFIG = "config.pbtxt"
MODEL = "model.onnx"
TYPES: dict[int, int] = {
    onnx.TensorProto.FLOAT: pb.TYPE_FP32,
    onnx.TensorProto.INT64: pb.TYPE_INT64,
    onnx.TensorProto.STRING: pb.TYPE_STRING,
}
WARM_UP_ROWS = 2  # enough to run every operator


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph; -1 in `dims` is the number of candidates."""

    name: str
    type: int
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that change with the signature."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


def read_signature(path: Path) -> Signature:
    """Parses and checks an ONNX file, so that a broken one never reaches a server.

    Raises:
        ReleaseError: the file is not a valid graph, or takes or gives a type that the chain does not send.
    """
    try:
        graph = onnx.load(str(path))
        onnx.checker.check_model(graph)
    except Exception as error:  # onnx raises errors of protobuf, its checker and its own, with no common base
        raise ReleaseError(f"{path}: not a valid ONNX graph: {error}") from error
    initial = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in initial]
    return Signature(_tensors(path, inputs), _tensors(path, graph.graph.output))


def _tensors(path: Path, values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    found = []
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type not in TYPES:
            raise ReleaseError(f"{path}: {value.name!r} is of type {onnx.TensorProto.DataType.Name(tensor.elem_type)}")
        dims = tuple(int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        found.append(Tensor(value.name, TYPES[tensor.elem_type], dims))
    return tuple(found)


def model_config(name: str, signature: Signature, versions: Mapping[str, Version]) -> pb.ModelConfig:
    """The configuration of a model.

    `max_batch_size` is 0: a request brings one user with N candidates, and the graph broadcasts the user, so the server
    must not join requests. One instance and one thread: parallelism comes from requests, and from more servers.
    """
    config = pb.ModelConfig(name=name, platform="onnxruntime_onnx", max_batch_size=0, default_model_filename=MODEL)
    config.version_policy.specific.versions.extend(sorted(version.number for version in versions.values()))
    for tensor in signature.inputs:
        config.input.add(name=tensor.name, data_type=tensor.type, dims=tensor.dims)
    for tensor in signature.outputs:
        config.output.add(name=tensor.name, data_type=tensor.type, dims=tensor.dims)
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    for setting in ("intra_op_thread_count", "inter_op_thread_count"):
        config.parameters[setting].string_value = "1"
    for release, version in sorted(versions.items()):
        config.parameters[PREFIX + release].string_value = version.to_json()
    warm_up = config.model_warmup.add(name="zeros", batch_size=1)
    for tensor in signature.inputs:
        dims = [WARM_UP_ROWS if dim == -1 else dim for dim in tensor.dims]
        warm_up.inputs[tensor.name].CopyFrom(pb.ModelWarmup.Input(data_type=tensor.type, dims=dims, zero_data=True))
    return config


class ModelRepository:
    """The repository as the publisher sees it. One publisher at a time: publishing holds a lock."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def versions(self) -> dict[str, Version]:
        """Release -> its version, of every model."""
        found: dict[str, Version] = {}
        for file in self._root.glob(f"*/{CONFIG}"):
            found |= versions_in(self._read(file))
        return found

    def add(self, release: Release) -> Version:
        """Puts a release's graph into the repository, beside the others; a release that is there, whole, is left as it is."""
        source, promised = release.file("model/model.onnx"), release.manifest["files"]["model/model.onnx"]["sha256"]
        signature = read_signature(source)
        check_outputs(release, [tensor.name for tensor in signature.outputs])
        model = f"{release.scene}-{signature.id}"
        folder = self._root / model
        versions = versions_in(self._read(folder / CONFIG)) if (folder / CONFIG).exists() else {}
        version = versions.get(release.id)
        if version is None:
            taken = [int(path.name) for path in folder.glob("[0-9]*")]
            spec = str(release.manifest["feature_spec_sha256"])
            version = Version(model, max(taken, default=0) + 1, promised, spec)
        elif version.model_sha256 != promised:
            raise StoreError(f"{folder}: holds another model as release {release.id}; drop that release first")
        target = folder / str(version.number)
        if not (target / MODEL).exists() or sha256(target / MODEL) != promised:
            shutil.rmtree(target, ignore_errors=True)
            with atomic_folder(target) as temporary:
                shutil.copyfile(source, temporary / MODEL)
        self._write(model_config(model, signature, {**versions, release.id: version}))
        return version

    def remove(self, release: str) -> tuple[Version, bool] | None:
        """Takes a release out of its model's configuration; its files stay until `clean`.

        Returns:
            the version and whether the model keeps others; None when the repository does not know the release.
        """
        version = self.versions().get(release)
        if version is None:
            return None
        config = self._read(self._root / version.model / CONFIG)
        del config.parameters[PREFIX + release]
        config.version_policy.specific.versions.remove(version.number)
        if not versions_in(config):
            return version, False
        self._write(config)
        return version, True

    def clean(self, version: Version, keeps_others: bool) -> None:
        """Deletes the files of a version that no server serves any more; the whole model when it was the last."""
        folder = self._root / version.model
        shutil.rmtree(folder / str(version.number) if keeps_others else folder)

    def _read(self, path: Path) -> pb.ModelConfig:
        try:
            return text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
        except (text_format.ParseError, OSError) as error:
            raise StoreError(f"{path}: not a model configuration: {error}") from error

    def _write(self, config: pb.ModelConfig) -> None:
        """Writes a configuration unless the same is there: a load with nothing changed on disk is then nothing to do."""
        path = self._root / config.name / CONFIG
        text = text_format.MessageToString(config)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
