"""A Python-based Triton backend that serves `platform: "onnxruntime_onnx"` models with the onnxruntime package.

The PyPI wheel of Triton lacks the native onnxruntime backend of the official image. With this one in its backend
directory the same model repository and `config.pbtxt` load there unchanged. It serves models without Triton's own
batching (`max_batch_size: 0`), which is how the scorer sends requests: one request is one run of the graph.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb

if not np.__version__.startswith("1."):
    raise ImportError(f"numpy {np.__version__}: this Triton's Python backend hands over zeros unless numpy is < 2")

THREADS = {"intra_op_thread_count": "intra_op_num_threads", "inter_op_thread_count": "inter_op_num_threads"}


def as_input(tensor: Any) -> np.ndarray:
    """A tensor as onnxruntime takes it: Triton hands strings over as bytes objects."""
    values = tensor.as_numpy()
    if values.dtype == np.object_:
        return np.array([value.decode() for value in values.ravel()], np.object_).reshape(values.shape)
    return values


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        return config

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        if config.get("max_batch_size", 0) > 0:
            raise ValueError(f"{config['name']}: max_batch_size must be 0; this backend does not batch")
        file = config.get("default_model_filename") or "model.onnx"
        options = onnxruntime.SessionOptions()
        for key, attribute in THREADS.items():
            if key in config.get("parameters", {}):
                setattr(options, attribute, int(config["parameters"][key]["string_value"]))
        self.session = onnxruntime.InferenceSession(
            Path(args["model_repository"]) / args["model_version"] / file, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [tensor["name"] for tensor in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        try:
            feed = {name: as_input(pb.get_input_tensor_by_name(request, name)) for name in self.inputs}
            wanted = list(request.requested_output_names())
            values = self.session.run(wanted, feed)
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes this request's error and no other's
            return pb.InferenceResponse(error=pb.TritonError(f"{type(error).__name__}: {error}"))
        return pb.InferenceResponse([pb.Tensor(name, value) for name, value in zip(wanted, values, strict=True)])
