"""Raw feature values -> ids and scaled numbers, as one ONNX graph built from the feature spec.

Training tables are encoded by this graph, and export merges the same graph in front of the network: encoding exists once.
For each input `f` of the spec the graph has

    encoded.<f>   what the network reads: int64 ids (see vocabulary.py) or float32, [lead] or [lead, length]; not for cross_only
    raw.<f>       the value that crosses read, with a missing one replaced; int64 stays int64; for inputs of crosses
                  and for the weights of sequences

Every value has a defined answer. Unseen tokens become UNK, the declared missing token of a list becomes padding. NaN becomes
the declared default; infinite and huge numbers saturate (at HUGE before the transforms, at LIMIT deviations after
`standardize`); log1p keeps the sign. Growing vocabularies enter as ids, out of range ones become UNK.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.raw_columns import missing_value
from data_exchange_center.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary

OPSET, ML_OPSET, IR_VERSION = 20, 3, 10
HUGE = 1e30  # float32 inputs saturate here
FARTHEST = 2**53  # int64 inputs saturate here
LIMIT = 5.0  # standardized values saturate here
ENCODED, RAW = "encoded.", "raw."

TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT, "string": TensorProto.STRING}


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of one feature's transformed values in the fit's rows; one number per element.

    Attributes:
        mean, deviation: length 1 for a scalar, the feature's length for a dense vector.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def raw_inputs(spec: FeatureSpec) -> list[Feature]:
    """Inputs that the graph passes on raw: what crosses read and what weighs sequences."""
    wanted = {name for feature in spec.crosses if feature.cross for name in feature.cross.inputs}
    wanted |= {feature.weights for feature in spec.inputs if feature.weights}
    return [feature for feature in spec.inputs if feature.name in wanted]


def encoded_inputs(spec: FeatureSpec) -> list[Feature]:
    """Inputs that the network sees encoded."""
    return [feature for feature in spec.inputs if not feature.cross_only]


def build_encoder(
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    statistics: Mapping[str, Statistics] | None,
    id_types: tuple[str, str],
    *,
    users: int | str = "users",
    items: int | str = "items",
    only: Collection[str] | None = None,
) -> onnx.ModelProto:
    """Builds the graph.

    Args:
        vocabularies: by the feature that owns them (FeatureSpec.vocabulary_of).
        statistics: by feature, for those with `standardize`; None leaves that transform out, which is how they are fitted.
        id_types: dtypes of user and item ids, as the log declares them.
        users: leading dimension of user and context inputs: a number, or the name of a dynamic one.
        items: the same for item and candidate inputs.
        only: names of the inputs to encode; all by default.

    Raises:
        SpecError: a vocabulary or statistics are missing, or do not fit the feature; it is named.
    """
    graph = _Graph()
    passed = {feature.name for feature in raw_inputs(spec)}
    for feature in spec.inputs:
        if only is not None and feature.name not in only:
            continue
        kind = spec.dtype_of(feature, *id_types)
        lead = users if feature.entity in ("user", "context") else items
        shape: list[int | str] = [lead, feature.length] if feature.is_list else [lead]
        if feature.name not in passed and feature.cross_only:
            raise SpecError(f"feature {feature.name!r} is cross_only, and no cross reads it", field=feature.name)
        graph.inputs.append(helper.make_tensor_value_info(feature.name, TYPES[kind], shape))
        if feature.name in passed:
            if kind == "string" or feature.vocabulary is not None:
                raise SpecError(f"feature {feature.name!r}: crosses and weights read numbers", field=feature.name)
            graph.output(RAW + feature.name, _present(graph, feature, kind), TYPES[kind], shape)
        if feature.cross_only:
            continue
        if feature.vocabulary is not None:
            owner = spec.vocabulary_of(feature).name
            if owner not in vocabularies:
                raise SpecError(f"feature {feature.name!r}: no vocabulary was given for {owner!r}", field=feature.name)
            ids = _ids(graph, feature, kind, vocabularies[owner], spec.vocabulary_of(feature).vocabulary.policy)  # type: ignore[union-attr]
            graph.output(ENCODED + feature.name, ids, TensorProto.INT64, shape)
        else:
            number, bucketized = _number(graph, feature, kind, statistics)
            graph.output(ENCODED + feature.name, number, TensorProto.INT64 if bucketized else TensorProto.FLOAT, shape)
    return graph.model()


def embedding_rows(feature: Feature, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary]) -> int:
    """Rows of the embedding table that a feature's ids point into; 0 when it has no table."""
    if feature.vocabulary is not None:
        return vocabularies[spec.vocabulary_of(feature).name].size
    if feature.transform and isinstance(feature.transform[-1], dict) and "bucketize" in feature.transform[-1]:
        return len(feature.transform[-1]["bucketize"]) + 1
    return 0


@dataclass
class _Graph:
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


def _present(graph: _Graph, feature: Feature, kind: str) -> str:
    """The value with NaN replaced and its size bounded."""
    if kind == "int64":
        low, high = (graph.integer(bound) for bound in (-FARTHEST, FARTHEST))
        return graph.add("Clip", feature.name, low, high)
    filled = graph.add("Where", graph.add("IsNaN", feature.name), graph.floats(float(feature.missing)), feature.name)
    return graph.add("Clip", filled, graph.floats(-HUGE), graph.floats(HUGE))


def _ids(graph: _Graph, feature: Feature, kind: str, vocabulary: Vocabulary, policy: str) -> str:
    """int64 ids in the feature's shape."""
    if policy in ("growing", "hashed"):
        if kind != "int64":
            raise SpecError(
                f"feature {feature.name!r}: a {policy} vocabulary reads int64 in the graph, not {kind}",
                field=feature.name,
            )
        if policy == "hashed":
            buckets = graph.integer(vocabulary.capacity)
            ids = graph.add("Add", graph.add("Mod", feature.name, buckets), graph.integer(FIRST))
        else:
            negative = graph.add("Less", feature.name, graph.integer(0))
            outside = graph.add(
                "Or", negative, graph.add("GreaterOrEqual", feature.name, graph.integer(vocabulary.size))
            )
            ids = graph.add("Where", outside, graph.integer(UNKNOWN), feature.name)
        return _padded(graph, feature.name, ids, int(feature.missing)) if feature.is_list else ids
    wanted = int if kind == "int64" else str
    if any(not isinstance(token, wanted) for token in vocabulary.tokens[:1]):
        raise SpecError(f"feature {feature.name!r}: its vocabulary does not hold {kind} tokens", field=feature.name)
    table = dict(vocabulary.ids)
    if feature.is_list:
        table[missing_value(feature, kind)] = PADDING  # type: ignore[index]  # padding wins over a token
    keys = list(table)
    attribute = {"keys_int64s": keys} if wanted is int else {"keys_strings": keys}
    return graph.add(
        "LabelEncoder",
        feature.name,
        domain="ai.onnx.ml",
        **attribute,
        values_int64s=list(table.values()),
        default_int64=UNKNOWN,
    )


def _padded(graph: _Graph, raw: str, ids: str, missing: int) -> str:
    is_missing = graph.add("Equal", raw, graph.integer(missing))
    return graph.add("Where", is_missing, graph.integer(PADDING), ids)


def _number(
    graph: _Graph, feature: Feature, kind: str, statistics: Mapping[str, Statistics] | None
) -> tuple[str, bool]:
    """The transformed value, and whether the last transform made it a bucket id."""
    value = _present(graph, feature, kind)
    if kind == "int64":
        value = graph.add("Cast", value, to=TensorProto.FLOAT)
    for step in feature.transform:
        if step == "log1p":
            size = graph.add("Log", graph.add("Add", graph.add("Abs", value), graph.floats(1.0)))
            value = graph.add("Mul", graph.add("Sign", value), size)
        elif step == "standardize":
            if statistics is not None:
                value = _standardized(graph, feature, value, statistics)
        elif isinstance(step, dict) and "clip" in step:
            value = graph.add("Clip", value, graph.floats(step["clip"][0]), graph.floats(step["clip"][1]))
        elif isinstance(step, dict):
            edges = graph.constant(np.array(step["bucketize"], np.float32))
            column = graph.add("Unsqueeze", value, graph.constant(np.array([-1], np.int64)))
            passed = graph.add("Cast", graph.add("GreaterOrEqual", column, edges), to=TensorProto.INT64)
            return graph.add("ReduceSum", passed, graph.constant(np.array([-1], np.int64)), keepdims=0), True
    return value, False


def _standardized(graph: _Graph, feature: Feature, value: str, statistics: Mapping[str, Statistics]) -> str:
    known = statistics.get(feature.name)
    if known is None or len(known.mean) != feature.length or len(known.deviation) != feature.length:
        raise SpecError(
            f"feature {feature.name!r}: statistics of {feature.length} element(s) are needed", field=feature.name
        )
    centred = graph.add("Sub", value, graph.floats(*known.mean))
    scaled = graph.add("Div", centred, graph.floats(*known.deviation))
    return graph.add("Clip", scaled, graph.floats(-LIMIT), graph.floats(LIMIT))
