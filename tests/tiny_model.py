"""A small ONNX ranker on raw features: the sum of an effect per input. It stands in for a trained one in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from data_exchange_center.feature_spec import Feature, FeatureSpec

OUTPUTS = ("score", "like", "score_logit", "like_logit")
ELEMENT = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT, "string": TensorProto.STRING}


def write_model(
    path: Path,
    spec: FeatureSpec,
    tokens: Mapping[str, Sequence[int] | Sequence[str]],
    ids: str,
    generator: np.random.Generator,
) -> None:
    """Writes the graph: user and context inputs have leading dimension 1, item and candidate inputs N; outputs float32 [N].

    Args:
        tokens: of each feature with a vocabulary. ids: dtype of user and item ids.
    """
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, values: object, dtype: type) -> str:
        constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def effect(feature: Feature, dtype: str) -> str:
        """An op chain from a raw input [rows(, length)] to its effect [rows]."""
        name = feature.name
        if feature.vocabulary:
            keys = tokens[name]
            kind: dict[str, Any] = {"keys_strings": keys} if dtype == "string" else {"keys_int64s": keys}
            weights = generator.normal(0, 0.3, len(keys)).astype(np.float32).tolist()
            encoded = helper.make_node(
                "LabelEncoder",
                [name],
                [f"{name}_w"],
                domain="ai.onnx.ml",
                **kind,
                values_floats=weights,
                default_float=0.05,
            )
            nodes.append(encoded)
            value = f"{name}_w"
        else:
            value = node("Cast", [name], f"{name}_f", to=TensorProto.FLOAT) if dtype == "int64" else name
            if dtype == "float32" and feature.entity == "candidate":  # a missing one comes as NaN
                default = constant(f"{name}_missing", float(feature.missing), np.float32)
                value = node("Where", [node("IsNaN", [name], f"{name}_nan"), default, name], f"{name}_there")
            if dtype == "int64":  # years and timestamps: log1p keeps the effect small and every value distinct
                one = constant(f"{name}_one", 1.0, np.float32)
                value = node("Log", [node("Add", [value, one], f"{name}_1")], f"{name}_log")
            value = node("Mul", [value, constant(f"{name}_c", generator.normal(0, 0.02), np.float32)], f"{name}_s")
        if feature.is_list:
            value = node("ReduceMean", [value, constant(f"{name}_axis", [1], np.int64)], f"{name}_m", keepdims=0)
        return value

    inputs: list[onnx.ValueInfoProto] = []
    common: list[str] = []
    shown: list[str] = []
    for feature in spec.inputs:
        dtype = ids if feature.dtype == "id" else feature.dtype
        rows: int | str = 1 if feature.entity in ("user", "context") else "N"
        shape = [rows, feature.length] if feature.is_list else [rows]
        inputs.append(helper.make_tensor_value_info(feature.name, ELEMENT[dtype], shape))
        (common if "like" in feature.heads else shown).append(effect(feature, dtype))
    node("Sum", common, "like_logit")
    node("Sum", ["like_logit", *shown], "score_logit")
    node("Sigmoid", ["like_logit"], "like")
    node("Sigmoid", ["score_logit"], "score")
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in OUTPUTS]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
