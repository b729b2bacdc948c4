"""Derived features in the encoder's graph: values computed from the raw ones. What they are is defined in feature_operations.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import TensorProto

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_operations import CROSS_FACTORS, CROSS_PRIMES, CROSS_SHIFT
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.graph_nodes import Graph, look_up, present
from data_exchange_center.token_tables import TokenTable

FOLD = "fold"  # the input that a graph for the fit's own rows has beside the features: int64 [lead], each row's fold


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of one feature's transformed values in the fit's rows; one number per element.

    Attributes:
        mean, deviation: length 1 for a scalar, the feature's length for a dense vector.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True)
class Fitted:
    """What a fit found in its rows beside vocabularies; each by feature.

    Attributes:
        statistics: of features with `standardize`; None leaves that transform out, which is how they are fitted.
        edges: of features with `quantiles`, ascending; None leaves that transform out and missing values NaN.
        tables: of what count and target features read, by the name of that input or cross.
    """

    statistics: Mapping[str, Statistics] | None = None
    edges: Mapping[str, Sequence[float]] | None = None
    tables: Mapping[str, TokenTable] = field(default_factory=dict)


@dataclass
class Derivations:
    """Raw values of inputs and derived features: the names of their tensors, each computed once."""

    graph: Graph
    spec: FeatureSpec
    fitted: Fitted
    id_types: tuple[str, str]
    by_fold: bool
    known: dict[str, str] = field(default_factory=dict)  # feature or "table of <feature>" -> tensor

    def value(self, feature: Feature) -> str:
        """The value before transforms; a missing number may still be NaN."""
        if feature.derive is None:
            return feature.name
        if feature.name not in self.known:
            self.known[feature.name] = self._derived(feature)
        return self.known[feature.name]

    def _derived(self, feature: Feature) -> str:
        derive = feature.derive
        assert derive is not None  # noqa: S101  # for the type checker
        sources = [self.spec[name] for name in derive.inputs]
        if derive.op == "cross":
            return self._cross([self.value(source) for source in sources])
        if derive.op == "value":
            if self.spec.dtype_of(sources[0], *self.id_types) == "int64":
                bounded = present(self.graph, sources[0], "int64", sources[0].name)
                return self.graph.add("Cast", bounded, to=TensorProto.FLOAT)
            return self.value(sources[0])
        table, place = self._place(sources[0], feature)
        if derive.op == "count":
            counts = table.counts(derive.parameter("min_frequency"), without_itself=self.by_fold)
            return self.graph.add("Gather", self.graph.constant(counts), place)
        rates = table.rates(derive.parameter("strength"), derive.parameter("min_frequency"))
        if not self.by_fold:
            return self.graph.add("Gather", self.graph.constant(rates[:, -1].copy()), place)
        line = self.graph.add("Mul", place, self.graph.integer(rates.shape[1]))
        return self.graph.add("Gather", self.graph.constant(rates.ravel()), self.graph.add("Add", line, FOLD))

    def _cross(self, values: Sequence[str]) -> str:
        """See feature_operations.cross_hash."""
        graph, parts = self.graph, []
        for number, factor in zip(CROSS_PRIMES, CROSS_FACTORS, strict=True):
            prime, part = graph.integer(number), graph.integer(factor)  # 1 * factor
            for place, value in enumerate(values):
                if place:
                    part = graph.add("Mul", part, graph.integer(factor))
                part = graph.add("Mod", graph.add("Add", part, graph.add("Mod", value, prime)), prime)
            parts.append(part)
        return graph.add("Add", graph.add("Mul", parts[0], graph.integer(CROSS_SHIFT)), parts[1])

    def _place(self, source: Feature, feature: Feature) -> tuple[TokenTable, str]:
        """The table of a source's values, and each row's line in it; the line after the last is of values that it lacks."""
        table = self.fitted.tables.get(source.name)
        if table is None:
            raise SpecError(f"feature {feature.name!r}: no table of {source.name!r} was given", field=feature.name)
        name = f"table of {source.name}"
        if name not in self.known:
            kind = self.spec.dtype_of(source, *self.id_types)
            self.known[name] = look_up(
                self.graph, self.value(source), kind, table.tokens.tolist(), list(range(len(table))), len(table)
            )
        return table, self.known[name]
