"""From a scene's feature spec to the columns of the feature tables: what computes each one, and as which type it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Feature
from offline.preprocess.histories import HISTORY_FIELDS

_ELEMENTS = {"int64": dt.int64, "float32": dt.float32, "string": dt.string}


@dataclass(frozen=True)
class EntityColumns:
    """Columns of one entity.

    Attributes:
        key: the entity's id column.
        features: in declared order.
        computed: names that the expressions compute.
        attributes: names taken from the entity's own table.
        absent: names that this dataset lacks; they get the default that the spec declares.
    """

    key: str
    features: tuple[Feature, ...]
    computed: tuple[str, ...]
    attributes: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All columns, in declared order."""
        return [feature.name for feature in self.features]


def entity_columns(key: str, features: Sequence[Feature], known: Sequence[str], table: Sequence[str]) -> EntityColumns:
    """Says where each declared feature of an entity comes from.

    Args:
        key: the entity's id column.
        features: the entity's features of the spec, keys left out.
        known: names that the expressions compute.
        table: columns of the entity's own table.

    Raises:
        SpecError: a feature that no expression computes, no attribute provides and that has no default.
    """
    computed, attributes, absent = [], [], []
    for feature in features:
        if feature.name in known:
            computed.append(feature.name)
        elif feature.name in table:
            attributes.append(feature.name)
        elif feature.default is not None:
            absent.append(feature.name)
        else:
            raise SpecError(
                f"feature {feature.name!r}: no expression computes it and the dataset has no such attribute (it has "
                f"{[name for name in table if name != key]}); correct the name, add an expression to "
                "offline/preprocess/expressions.py, or declare a default for datasets that lack it",
                field=feature.name,
            )
    return EntityColumns(key, tuple(features), tuple(computed), tuple(attributes), tuple(absent))


def typed(table: ir.Table, columns: EntityColumns) -> dict[str, ir.Value]:
    """The declared columns of a table that has the computed ones and the attributes, each as the type that the spec declares.

    Missing values become the feature's default; a sequence is cut to its declared length.
    """
    made: dict[str, ir.Value] = {}
    for feature in columns.features:
        if feature.name in columns.absent:
            value = _missing(feature, _type_of(feature, None))
        else:
            value = table[feature.name]
            value = value.cast(_type_of(feature, value.type()))
            if feature.name in HISTORY_FIELDS:
                value = value[: feature.length]
            if feature.name in columns.attributes:
                value = ibis.coalesce(value, _missing(feature, value.type()))
        made[feature.name] = value
    return made


def _missing(feature: Feature, kind: dt.DataType) -> ir.Value:
    # cast from the literal's own type, because engines read a literal like 0.5 as a decimal
    return ibis.literal([], type=kind) if feature.is_list else ibis.literal(feature.missing).cast(kind)


def _type_of(feature: Feature, natural: dt.DataType | None) -> dt.DataType:
    if feature.dtype == "id":
        if natural is None:
            raise SpecError(f"feature {feature.name!r}: an id has no default; correct its name", field=feature.name)
        return natural
    element = _ELEMENTS[feature.dtype]
    return dt.Array(element) if feature.is_list else element
