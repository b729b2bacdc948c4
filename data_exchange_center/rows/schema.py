"""What raw rows hold: ordered, typed columns, the same whatever format they come in.

A scalar column uses null for a missing value, a list column the empty list. Columns without a label column are how unlabelled
rows (what one wants scored) look; every parser tells from the rows themselves which of the two it has before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import FeatureSpec

Kind = Literal["float32", "int64", "string"]
ARROW: dict[str, pa.DataType] = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}
INTEGERS, CATEGORIES = 13, 26  # of Criteo's display-advertising logs


@dataclass(frozen=True)
class RowColumn:
    """One column.

    Attributes:
        name: of the column, and of the feature that reads it.
        kind: of one element.
        is_list: a value holds any number of elements; none is ever dropped.
        label: the column is the row's label: 0 or 1, never missing.
        default: stands for a missing scalar, and fills a list of fixed length; None leaves scalars null.
        length: of a list, when all have the same: shorter ones are filled with `default`, longer ones are an error. 0: any.
    """

    name: str
    kind: Kind
    is_list: bool = False
    label: bool = False
    default: float | int | str | None = None
    length: int = 0

    def __post_init__(self) -> None:
        if self.label and (self.kind != "float32" or self.is_list):
            raise SpecError(f"column {self.name!r}: a label is a float32 scalar", field=self.name)
        if self.length and (not self.is_list or self.default is None):
            raise SpecError(f"column {self.name!r}: a fixed length needs a list and a default", field=self.name)
        if self.default is not None and not _fits(self.default, self.kind):
            raise SpecError(f"column {self.name!r}: default {self.default!r} is no {self.kind}", field=self.name)
        if self.default is not None and (self.label or (self.is_list and not self.length)):
            raise SpecError(
                f"column {self.name!r}: a default is for scalars and lists of fixed length", field=self.name
            )

    @property
    def arrow(self) -> pa.DataType:
        """The column's type in a record batch."""
        element = ARROW[self.kind]
        if not self.is_list:
            return element
        return pa.list_(element, self.length) if self.length else pa.list_(element)


def _fits(default: float | int | str, kind: Kind) -> bool:
    if kind == "string":
        return isinstance(default, str)
    if kind == "int64":
        return isinstance(default, int) and not isinstance(default, bool) and -(2**63) <= default < 2**63
    return isinstance(default, int | float) and bool(np.isfinite(np.float32(default)))


@dataclass(frozen=True)
class RowSchema:
    """The columns of a row, in their order; at most one is the label, and it stands first."""

    columns: tuple[RowColumn, ...]

    def __post_init__(self) -> None:
        names = self.names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SpecError(f"row schema: column {repeated[0]!r} is declared twice", field=repeated[0])
        if not self.features:
            raise SpecError("row schema: has no column besides the label")
        if any(column.label for column in self.columns[1:]):
            raise SpecError("row schema: the label stands first, once")

    @cached_property
    def names(self) -> list[str]:
        """All names, in order."""
        return [column.name for column in self.columns]

    @cached_property
    def label(self) -> RowColumn | None:
        """The label column, if the rows have one."""
        return self.columns[0] if self.columns and self.columns[0].label else None

    @cached_property
    def features(self) -> tuple[RowColumn, ...]:
        """Every column but the label."""
        return tuple(column for column in self.columns if not column.label)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The schema of the record batches that the parsers make."""
        return pa.schema([pa.field(column.name, column.arrow) for column in self.columns])

    @cached_property
    def unlabelled(self) -> RowSchema:
        """The same columns without the label."""
        return RowSchema(self.features)

    def select(self, names: Iterable[str]) -> RowSchema:
        """These columns alone, in the schema's order, and the label where there is one.

        Raises:
            SpecError: a name that is not declared.
        """
        wanted = set(names)
        for name in sorted(wanted - set(self.names)):
            raise SpecError(f"row schema: no column {name!r} (has {', '.join(self.names)})", field=name)
        return RowSchema(tuple(column for column in self.columns if column.label or column.name in wanted))

    def empty(self) -> pa.RecordBatch:
        """A batch of no rows."""
        return pa.RecordBatch.from_arrays([pa.array([], column.arrow) for column in self.columns], schema=self.arrow)

    def describe(self) -> list[dict[str, Any]]:
        """JSON of the columns, to compare and to store."""
        return [vars(column) for column in self.columns]

    def __getitem__(self, name: str) -> RowColumn:
        for column in self.columns:
            if column.name == name:
                return column
        raise SpecError(f"row schema: no column {name!r} (has {', '.join(self.names)})", field=name)


def criteo_schema(*, lists: bool = False, labelled: bool = True) -> RowSchema:
    """Criteo's display-advertising rows: `label`, `i1`…`i13` (float32), `c1`…`c26` (int64).

    Args:
        lists: the categories are lists, so that a slot given several times in slot text keeps all its ids.
        labelled: with the label.
    """
    label = [RowColumn(c.LABEL, "float32", label=True)] if labelled else []
    numbers = [RowColumn(f"i{place}", "float32") for place in range(1, INTEGERS + 1)]
    ids = [RowColumn(f"c{place}", "int64", is_list=lists) for place in range(1, CATEGORIES + 1)]
    return RowSchema((*label, *numbers, *ids))


def schema_of(spec: FeatureSpec, *, ids: Literal["int64", "string"] = "int64") -> RowSchema:
    """The raw rows that a spec's inputs are read from: a column for each input, in declared order, and the label.

    Args:
        spec: of the scene.
        ids: what features of dtype `id` hold.
    """
    features = [
        RowColumn(one.name, ids if one.dtype == "id" else one.dtype, is_list=one.is_list) for one in spec.inputs
    ]
    return RowSchema((RowColumn(c.LABEL, "float32", label=True), *features))
