"""The encoder of a released graph: packed raw features in, matrices and lists out, with few nodes whatever the number of features.

It computes what encoder.py computes, feature by feature, on whole matrices: missing values, transforms and statistics of all
scalars of a side together. Its inputs are those of input_blocks.py, its outputs the matrices of encoded_matrices.py, and
`encoded.<f>` and `raw.<f>` of lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import onnx
from onnx import TensorProto, helper

from data_exchange_center.derived_values import Derivations, Fitted
from data_exchange_center.encoded_matrices import FLOATS, IDS, MOMENTS, NUMBERS, Matrix, is_number, matrices, side_of
from data_exchange_center.encoder import (
    ENCODED,
    LIMIT,
    RAW,
    derived_from,
    encoded_value,
    log1p,
    raw_inputs,
    statistics_of,
)
from data_exchange_center.feature_operations import transform_name, transform_values
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.graph_nodes import FARTHEST, HUGE, TYPES, Graph, present
from data_exchange_center.input_blocks import InputBlock, input_blocks
from data_exchange_center.vocabulary import Vocabulary

TOGETHER = {"log1p", "standardize", "clip"}  # transforms that scalars of one side share


def build_block_encoder(
    spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary], fitted: Fitted, id_types: tuple[str, str]
) -> onnx.ModelProto:
    """Builds the graph: user and context inputs [1, n], item and candidate inputs [items, n].

    Args:
        vocabularies: by the feature that owns them. fitted: statistics, edges and tables.
        id_types: dtypes of user and item ids.

    Raises:
        SpecError: a vocabulary or statistics are missing, or do not fit the feature; it is named.
    """
    return _Builder(spec, vocabularies, fitted, id_types).model()


@dataclass
class _Columns:
    """Named columns of tensors [rows, n], from which others are put together."""

    graph: Graph
    widths: dict[str, int] = field(default_factory=dict)  # of each tensor
    places: dict[str, tuple[str, int]] = field(default_factory=dict)  # name -> tensor, column

    def add(self, names: Sequence[str], tensor: str) -> None:
        self.widths[tensor] = len(names)
        self.places |= {name: (tensor, column) for column, name in enumerate(names)}

    def take(self, names: Sequence[str]) -> str:
        """A tensor [rows, len(names)]."""
        places = [self.places[name] for name in names]
        runs = [(tensor, [column for _, column in run]) for tensor, run in groupby(places, key=lambda place: place[0])]
        parts = [self._taken(tensor, columns) for tensor, columns in runs]
        return parts[0] if len(parts) == 1 else self.graph.add("Concat", *parts, axis=1)

    def _taken(self, tensor: str, columns: list[int]) -> str:
        if columns == list(range(self.widths[tensor])):
            return tensor
        if columns == list(range(columns[0], columns[0] + len(columns))):
            first, end, axis = (
                self.graph.constant(np.array([n], np.int64)) for n in (columns[0], columns[0] + len(columns), 1)
            )
            return self.graph.add("Slice", tensor, first, end, axis)
        return self.graph.add("Gather", tensor, self.graph.constant(np.array(columns, np.int64)), axis=1)


class _Builder:
    def __init__(
        self, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary], fitted: Fitted, id_types: tuple[str, str]
    ) -> None:
        self.spec, self.vocabularies, self.fitted, self.id_types = spec, vocabularies, fitted, id_types
        self.graph = Graph()
        self.raw = {feature.name for feature in raw_inputs(spec)}
        self.derivations = Derivations(self.graph, spec, fitted, id_types, by_fold=False)
        self.raw_columns, self.encoded_columns = _Columns(self.graph), _Columns(self.graph)

    def model(self) -> onnx.ModelProto:
        runs: dict[tuple[str, str], list[tuple[str, list[Feature]]]] = {}
        for block in input_blocks(self.spec, self.id_types):
            rows: int | str = "items" if block.per_candidate else 1
            shape = [rows] if block.is_key else [rows, block.width]
            self.graph.inputs.append(helper.make_tensor_value_info(block.name, TYPES[block.dtype], shape))
            for kind, tensor, features in self._split(block):
                runs.setdefault((side_of(block.features[0]), kind), []).append((tensor, features))
        for (_, kind), parts in runs.items():
            features = [feature for _, members in parts for feature in members]
            tensors = [tensor for tensor, _ in parts]
            joined = tensors[0] if len(tensors) == 1 else self.graph.add("Concat", *tensors, axis=1)
            self.raw_columns.add([feature.name for feature in features], self._present(kind, features, joined))
        for matrix in matrices(self.spec, self.raw):
            self._matrix(matrix)
        for feature in self.spec.features:
            if feature.is_list and feature.cross is None:
                self._list(feature)
        return self.graph.model()

    def _split(self, block: InputBlock) -> list[tuple[str, str, list[Feature]]]:
        """Cuts a block into features, under their own names, and into runs of scalars that are computed together.

        Returns:
            Kind, tensor and features of each run.
        """
        if block.is_key:
            return []
        names, sizes, found = list[str](), list[int](), list[tuple[str, str, list[Feature]]]()
        for kind, members in groupby(block.features, key=self._kind):
            features = list(members)
            if kind:
                names.append(f"{block.name}.{kind}.{len(names)}")
                sizes.append(len(features))
                found.append((kind, names[-1], features))
            else:
                names += [feature.name for feature in features]
                sizes += [feature.length if feature.is_list else 1 for feature in features]
        if len(names) == 1:
            self.graph.nodes.append(helper.make_node("Identity", [block.name], names, name=f"split_{block.name}"))
        else:
            lengths = self.graph.constant(np.array(sizes, np.int64))
            self.graph.nodes.append(
                helper.make_node("Split", [block.name, lengths], names, name=f"split_{block.name}", axis=1)
            )
        return found

    def _kind(self, feature: Feature) -> str:
        """FLOATS or MOMENTS for a scalar that is computed together with others; "" for what is computed by itself."""
        if feature.is_list or feature.name in derived_from(self.spec):
            return ""
        if feature.cross_only and feature.name in self.raw:
            return FLOATS if feature.dtype == "float32" else MOMENTS
        shared = all(transform_name(step) in TOGETHER for step in feature.transform)
        return FLOATS if is_number(feature) and feature.dtype == "float32" and shared else ""

    def _present(self, kind: str, features: Sequence[Feature], tensor: str) -> str:
        """As graph_nodes.present, of many columns."""
        if kind == MOMENTS:
            return self.graph.add("Clip", tensor, self.graph.integer(-FARTHEST), self.graph.integer(FARTHEST))
        missing = self._row([float(feature.missing) for feature in features])
        filled = self.graph.add("Where", self.graph.add("IsNaN", tensor), missing, tensor)
        return self.graph.add("Clip", filled, self.graph.floats(-HUGE), self.graph.floats(HUGE))

    def _matrix(self, matrix: Matrix) -> None:
        features = [self.spec[name] for name in matrix.features]
        columns = self.raw_columns if matrix.kind in (FLOATS, MOMENTS) else self.encoded_columns
        if matrix.kind == NUMBERS:
            self._transform([feature for feature in features if self._kind(feature)])
        for feature in features:
            if feature.name not in columns.places:
                columns.add([feature.name], self._alone(feature, encoded=columns is self.encoded_columns))
        element = TensorProto.INT64 if matrix.kind in (IDS, MOMENTS) else TensorProto.FLOAT
        rows: int | str = 1 if matrix.side == "user" else "items"
        self.graph.output(matrix.name, columns.take(matrix.features), element, [rows, len(features)])

    def _transform(self, features: Sequence[Feature]) -> None:
        """Numbers whose transforms have the same names go through them together."""
        groups: dict[tuple[str, ...], list[Feature]] = {}
        for feature in features:
            groups.setdefault(tuple(map(transform_name, feature.transform)), []).append(feature)
        for steps, members in groups.items():
            names = [feature.name for feature in members]
            value = self.raw_columns.take(names)
            for place, step in enumerate(steps):
                if step == "log1p":
                    value = log1p(self.graph, value)
                elif step == "clip":
                    bounds = np.array([transform_values(feature.transform[place]) for feature in members], np.float32)
                    low, high = (self.graph.constant(bounds[:, side]) for side in (0, 1))
                    value = self.graph.add("Min", self.graph.add("Max", value, low), high)
                else:
                    known = [statistics_of(feature, self.fitted) for feature in members]
                    centred = self.graph.add("Sub", value, self._row([one.mean[0] for one in known]))
                    scaled = self.graph.add("Div", centred, self._row([one.deviation[0] for one in known]))
                    value = self.graph.add("Clip", scaled, self.graph.floats(-LIMIT), self.graph.floats(LIMIT))
            self.encoded_columns.add(names, value)

    def _alone(self, feature: Feature, *, encoded: bool) -> str:
        """One scalar, [rows, 1]: its id or number, or its raw value."""
        kind, value = self.spec.dtype_of(feature, *self.id_types), self.derivations.value(feature)
        if not encoded:
            return present(self.graph, feature, kind, value)
        made, _ = encoded_value(self.graph, self.spec, feature, kind, value, self.vocabularies, self.fitted)
        return self.graph.add("Unsqueeze", made, self.graph.constant(np.array([1], np.int64))) if feature.key else made

    def _list(self, feature: Feature) -> None:
        kind, value = self.spec.dtype_of(feature, *self.id_types), self.derivations.value(feature)
        shape: list[int | str] = [1 if side_of(feature) == "user" else "items", feature.length]
        if feature.name in self.raw:
            self.graph.output(RAW + feature.name, present(self.graph, feature, kind, value), TYPES[kind], shape)
        if not feature.cross_only:
            made, element = encoded_value(self.graph, self.spec, feature, kind, value, self.vocabularies, self.fitted)
            self.graph.output(ENCODED + feature.name, made, element, shape)

    def _row(self, values: Sequence[float]) -> str:
        return self.graph.constant(np.array(values, np.float32))
