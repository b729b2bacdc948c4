"""Which version of which Triton model a release is, as the model's configuration says it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from online.stores.model_inputs import ModelInput, declared_input

ELEMENTS = {pb.TYPE_FP32: "tensor(float)", pb.TYPE_INT64: "tensor(int64)", pb.TYPE_STRING: "tensor(string)"}
PREFIX = "release:"  # of the configuration's parameters that map a release


@dataclass(frozen=True)
class Version:
    """One version of a model, and the hashes that its release promised."""

    model: str
    number: int
    model_sha256: str
    feature_spec_sha256: str

    def to_json(self) -> str:
        return json.dumps(
            {
                "version": self.number,
                "model_sha256": self.model_sha256,
                "feature_spec_sha256": self.feature_spec_sha256,
            }
        )


def versions_in(config: pb.ModelConfig) -> dict[str, Version]:
    """Release -> version, from a model's configuration; empty for a model that is not ours."""
    found = {}
    for key, value in config.parameters.items():
        if key.startswith(PREFIX):
            entry = json.loads(value.string_value)
            found[key.removeprefix(PREFIX)] = Version(
                config.name, int(entry["version"]), str(entry["model_sha256"]), str(entry["feature_spec_sha256"])
            )
    return found


def inputs_in(config: pb.ModelConfig) -> tuple[ModelInput, ...]:
    """What a model takes."""
    return tuple(
        declared_input(tensor.name, ELEMENTS.get(tensor.data_type, str(tensor.data_type)), list(tensor.dims))
        for tensor in config.input
    )


def outputs_in(config: pb.ModelConfig) -> tuple[str, ...]:
    """What a model gives."""
    return tuple(tensor.name for tensor in config.output)
