"""Raw feature values -> ids and scaled numbers, as one ONNX graph built from the feature spec.

Training tables are encoded by this graph, and export merges the same graph in front of the network: encoding exists once.
For each input and derived feature `f` of the spec the graph has

    encoded.<f>   what the network reads: int64 ids (see vocabulary.py) or float32, [lead] or [lead, length]; not for cross_only
    raw.<f>       the value that crosses read, with a missing one replaced; int64 stays int64; for inputs of crosses
                  and for the weights of sequences

Every value has a defined answer. Unseen tokens become UNK, the declared missing token of a list becomes padding. NaN becomes
the declared default; infinite and huge numbers saturate (at HUGE before the transforms, at LIMIT deviations after
`standardize`); log1p keeps the sign. Growing vocabularies enter as ids, out of range ones become UNK. What transforms and derived
features compute is defined in feature_operations.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from data_exchange_center.derived_values import FOLD, Derivations, Fitted, Statistics
from data_exchange_center.errors import SpecError
from data_exchange_center.feature_operations import transform_name, transform_values
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.graph_nodes import TYPES, Graph, look_up, present
from data_exchange_center.raw_columns import missing_value
from data_exchange_center.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary

LIMIT = 5.0  # standardized values saturate here
ENCODED, RAW = "encoded.", "raw."


def raw_inputs(spec: FeatureSpec) -> list[Feature]:
    """Inputs that the graph passes on raw: what crosses read and what weighs sequences."""
    wanted = {name for feature in spec.crosses if feature.cross for name in feature.cross.inputs}
    wanted |= {feature.weights for feature in spec.inputs if feature.weights}
    return [feature for feature in spec.inputs if feature.name in wanted]


def derived_from(spec: FeatureSpec) -> set[str]:
    """Names of the features that derived features read."""
    return {name for feature in spec.derived if feature.derive for name in feature.derive.inputs}


def encoded_inputs(spec: FeatureSpec) -> list[Feature]:
    """Inputs and derived features that the network sees encoded."""
    return spec.encoded


def build_encoder(
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    fitted: Fitted,
    id_types: tuple[str, str],
    *,
    users: int | str = "users",
    items: int | str = "items",
    only: Collection[str] | None = None,
    crosses: Collection[str] = (),
    by_fold: bool = False,
) -> onnx.ModelProto:
    """Builds the graph.

    Args:
        vocabularies: by the feature that owns them (FeatureSpec.vocabulary_of).
        fitted: statistics, edges and tables.
        id_types: dtypes of user and item ids, as the log declares them.
        users: leading dimension of user and context inputs: a number, or the name of a dynamic one.
        items: the same for item and candidate inputs.
        only: names of the features to encode; all by default. The graph's inputs are what they are computed from.
        crosses: names of derived crosses whose values are outputs as well, `raw.<f>`.
        by_fold: a graph for the fit's own rows: target encodings are out of fold, by the input FOLD, and counts leave the row out.

    Raises:
        SpecError: a vocabulary or statistics are missing, or do not fit the feature; it is named.
    """
    graph = Graph()
    passed = {feature.name for feature in raw_inputs(spec)}
    wanted = [f for f in spec.features if f.cross is None and (only is None or f.name in only)]
    read = {source.name for name in [*(f.name for f in wanted), *crosses] for source in spec.sources(name)}
    derivations = Derivations(graph, spec, fitted, id_types, by_fold)
    for feature in spec.inputs:
        if feature.name in read:
            kind = spec.dtype_of(feature, *id_types)
            graph.inputs.append(helper.make_tensor_value_info(feature.name, TYPES[kind], _shape(feature, users, items)))
    if by_fold and any(feature.derive and feature.derive.op == "target" for feature in wanted):
        graph.inputs.append(helper.make_tensor_value_info(FOLD, TensorProto.INT64, [items]))
    for name in crosses:
        graph.output(RAW + name, derivations.value(spec[name]), TensorProto.INT64, _shape(spec[name], users, items))
    for feature in wanted:
        kind, shape = spec.dtype_of(feature, *id_types), _shape(feature, users, items)
        if feature.cross_only and feature.name not in passed | derived_from(spec):
            raise SpecError(f"feature {feature.name!r} is cross_only, and nothing reads it", field=feature.name)
        if feature.name in passed:
            if kind == "string" or feature.vocabulary is not None:
                raise SpecError(f"feature {feature.name!r}: crosses and weights read numbers", field=feature.name)
            graph.output(
                RAW + feature.name, present(graph, feature, kind, derivations.value(feature)), TYPES[kind], shape
            )
        if feature.cross_only:
            continue
        ids_or_number, element = encoded_value(
            graph, spec, feature, kind, derivations.value(feature), vocabularies, fitted
        )
        graph.output(ENCODED + feature.name, ids_or_number, element, shape)
    return graph.model()


def encoded_value(
    graph: Graph,
    spec: FeatureSpec,
    feature: Feature,
    kind: str,
    value: str,
    vocabularies: Mapping[str, Vocabulary],
    fitted: Fitted,
) -> tuple[str, int]:
    """A raw value of any shape as the network reads it, and its element type: ids (int64) or a number (float32).

    Args:
        kind: dtype of the raw value. value: its tensor.

    Raises:
        SpecError: a vocabulary or statistics are missing, or do not fit the feature.
    """
    if feature.vocabulary is None:
        number, bucketized = _number(graph, feature, kind, value, fitted)
        return number, TensorProto.INT64 if bucketized else TensorProto.FLOAT
    owner = spec.vocabulary_of(feature)
    if owner.name not in vocabularies:
        raise SpecError(f"feature {feature.name!r}: no vocabulary was given for {owner.name!r}", field=feature.name)
    policy = owner.vocabulary.policy  # type: ignore[union-attr]
    return _ids(graph, feature, kind, value, vocabularies[owner.name], policy), TensorProto.INT64


def embedding_rows(
    feature: Feature,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    edges: Mapping[str, Sequence[float]] | None = None,
) -> int:
    """Rows of the embedding table that a feature's ids point into; 0 when it has no table."""
    if feature.vocabulary is not None:
        return vocabularies[spec.vocabulary_of(feature).name].size
    if feature.bins:
        return FIRST + len((edges or {})[feature.name]) + 1
    return len(transform_values(feature.transform[-1])) + 1 if feature.bucketized else 0


def _shape(feature: Feature, users: int | str, items: int | str) -> list[int | str]:
    lead = users if feature.entity in ("user", "context") else items
    return [lead, feature.length] if feature.is_list else [lead]


def _ids(graph: Graph, feature: Feature, kind: str, value: str, vocabulary: Vocabulary, policy: str) -> str:
    """int64 ids in the feature's shape."""
    if policy in ("growing", "hashed", "raw"):
        if kind != "int64":
            raise SpecError(
                f"feature {feature.name!r}: a {policy} vocabulary reads int64 in the graph, not {kind}",
                field=feature.name,
            )
        if policy == "raw":
            return value
        if policy == "hashed":
            buckets = graph.integer(vocabulary.capacity)
            ids = graph.add("Add", graph.add("Mod", value, buckets), graph.integer(FIRST))
        else:
            negative = graph.add("Less", value, graph.integer(0))
            outside = graph.add("Or", negative, graph.add("GreaterOrEqual", value, graph.integer(vocabulary.size)))
            ids = graph.add("Where", outside, graph.integer(UNKNOWN), value)
        return _padded(graph, value, ids, int(feature.missing)) if feature.is_list else ids
    wanted = int if kind == "int64" else str
    if any(not isinstance(token, wanted) for token in vocabulary.tokens[:1]):
        raise SpecError(f"feature {feature.name!r}: its vocabulary does not hold {kind} tokens", field=feature.name)
    table = dict(vocabulary.ids)
    if feature.is_list:
        table[missing_value(feature, kind)] = PADDING  # type: ignore[index]  # padding wins over a token
    return look_up(graph, value, kind, list(table), list(table.values()), UNKNOWN)


def _padded(graph: Graph, raw: str, ids: str, missing: int) -> str:
    is_missing = graph.add("Equal", raw, graph.integer(missing))
    return graph.add("Where", is_missing, graph.integer(PADDING), ids)


def _number(graph: Graph, feature: Feature, kind: str, raw: str, fitted: Fitted) -> tuple[str, bool]:
    """The transformed value, and whether the last transform made it a bucket id."""
    value = present(graph, feature, kind, raw)
    if kind == "int64":
        value = graph.add("Cast", value, to=TensorProto.FLOAT)
    for step in feature.transform:
        name, values = transform_name(step), transform_values(step)
        if name == "log1p":
            value = log1p(graph, value)
        elif name == "standardize":
            if fitted.statistics is not None:
                value = _standardized(graph, feature, value, fitted)
        elif name == "clip":
            value = graph.add("Clip", value, graph.floats(values[0]), graph.floats(values[1]))
        elif name == "bucketize":
            return _bucket(graph, value, values), True
        else:
            missing = graph.add("IsNaN", raw)
            if fitted.edges is None:
                return graph.add("Where", missing, graph.floats(float("nan")), value), False
            if feature.name not in fitted.edges:
                raise SpecError(f"feature {feature.name!r}: edges of its quantiles are needed", field=feature.name)
            bucket = graph.add("Add", _bucket(graph, value, fitted.edges[feature.name]), graph.integer(FIRST))
            return graph.add("Where", missing, graph.integer(UNKNOWN), bucket), True
    return value, False


def _bucket(graph: Graph, value: str, edges: Sequence[float]) -> str:
    """How many edges are at most the value."""
    column = graph.add("Unsqueeze", value, graph.constant(np.array([-1], np.int64)))
    passed = graph.add("GreaterOrEqual", column, graph.constant(np.array(edges, np.float32)))
    counted = graph.add("Cast", passed, to=TensorProto.INT64)
    return graph.add("ReduceSum", counted, graph.constant(np.array([-1], np.int64)), keepdims=0)


def log1p(graph: Graph, value: str) -> str:
    """log(1 + |x|) with the sign of x."""
    size = graph.add("Log", graph.add("Add", graph.add("Abs", value), graph.floats(1.0)))
    return graph.add("Mul", graph.add("Sign", value), size)


def statistics_of(feature: Feature, fitted: Fitted) -> Statistics:
    """The statistics of a feature with `standardize`; SpecError when there are none that fit."""
    known = (fitted.statistics or {}).get(feature.name)
    if known is None or len(known.mean) != feature.length or len(known.deviation) != feature.length:
        raise SpecError(
            f"feature {feature.name!r}: statistics of {feature.length} element(s) are needed", field=feature.name
        )
    return known


def _standardized(graph: Graph, feature: Feature, value: str, fitted: Fitted) -> str:
    known = statistics_of(feature, fitted)
    centred = graph.add("Sub", value, graph.floats(*known.mean))
    scaled = graph.add("Div", centred, graph.floats(*known.deviation))
    return graph.add("Clip", scaled, graph.floats(-LIMIT), graph.floats(LIMIT))
