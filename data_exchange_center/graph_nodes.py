"""Nodes of an ONNX graph as they are added, and the few that every encoding needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from data_exchange_center.feature_spec import Feature

OPSET, ML_OPSET, IR_VERSION = 20, 3, 10
HUGE = 1e15  # float32 inputs saturate here: the product of any two, times thousands, is still a float32
FARTHEST = 2**53  # int64 inputs saturate here

TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT, "string": TensorProto.STRING}


@dataclass
class Graph:
    """Nodes and constants as they are added; every method returns the name of its result."""

    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"encoder_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"encoder_constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def floats(self, *values: float) -> str:
        return self.constant(np.array(values if len(values) > 1 else values[0], np.float32))

    def integer(self, value: int) -> str:
        return self.constant(np.array(value, np.int64))

    def output(self, name: str, source: str, kind: int, shape: Sequence[int | str]) -> None:
        self.nodes.append(helper.make_node("Identity", [source], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "encoder", self.inputs, self.outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="marquee")
        onnx.checker.check_model(model, full_check=True)
        return model


def look_up(graph: Graph, value: str, kind: str, tokens: Sequence[int | str], ids: Sequence[int], default: int) -> str:
    """token -> id by a hash table."""
    if not tokens:  # a LabelEncoder needs one; this one maps a token to what every other one gets as well
        tokens, ids = [0 if kind == "int64" else ""], [default]
    attribute = {"keys_int64s" if kind == "int64" else "keys_strings": tokens}
    return graph.add(
        "LabelEncoder", value, domain="ai.onnx.ml", **attribute, values_int64s=list(ids), default_int64=default
    )


def present(graph: Graph, feature: Feature, kind: str, value: str) -> str:
    """The value with NaN replaced and its size bounded."""
    if kind == "int64":
        low, high = (graph.integer(bound) for bound in (-FARTHEST, FARTHEST))
        return graph.add("Clip", value, low, high)
    filled = graph.add("Where", graph.add("IsNaN", value), graph.floats(float(feature.missing)), value)
    return graph.add("Clip", filled, graph.floats(-HUGE), graph.floats(HUGE))
