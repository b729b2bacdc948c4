"""Arrays to Triton's wire format and back. Strings travel as a 4-byte little-endian length and UTF-8 bytes each."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from tritonclient.grpc import service_pb2 as pb

DATATYPES = {"float32": "FP32", "int64": "INT64"}


@lru_cache(maxsize=65_536)  # terms and categories repeat from request to request
def _packed(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded


def infer_request(model: str, version: int, inputs: Mapping[str, np.ndarray]) -> pb.ModelInferRequest:
    """A request for all outputs of one version of a model; inputs are float32, int64 or strings, as `model_inputs` checked."""
    request = pb.ModelInferRequest(model_name=model, model_version=str(version))
    for name, array in inputs.items():
        if array.dtype.kind in "OU":
            datatype, content = "BYTES", b"".join(map(_packed, array.ravel().tolist()))
        else:
            datatype, content = DATATYPES[array.dtype.name], array.tobytes()
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(content)
    return request


def read_outputs(response: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    """Output name -> float32 array (read-only)."""
    outputs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {tensor.name: np.frombuffer(content, np.float32).reshape(tuple(tensor.shape)) for tensor, content in outputs}
