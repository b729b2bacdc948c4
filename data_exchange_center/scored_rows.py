"""Rows that come whole, as the graph of a scorer release takes them.

Features and graph inputs may have different names: whoever exports a model for a system that exists names its inputs and
outputs as that system does. The `scorer` entry of the release's manifest says which is which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_exchange_center.errors import DataError, ReleaseError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.raw_columns import raw_column
from data_exchange_center.release import Release
from data_exchange_center.rows.schema import RowColumn, RowSchema

SAMPLE = "sample/rows.parquet"


class RowForm(BaseModel):
    """The `scorer` entry of a manifest.

    Attributes:
        columns: of a row as files hold it, label first (`RowSchema.describe`); features that the spec leaves out included.
        inputs: feature -> input of the graph, for each input of the spec.
        output: of the graph's outputs, the probability that answers a row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: list[dict[str, Any]] = Field(min_length=1)
    inputs: dict[str, str] = Field(min_length=1)
    output: str = Field(min_length=1)

    def row_schema(self) -> RowSchema:
        """How the rows look in files.

        Raises:
            SpecError: the columns contradict each other.
        """
        return RowSchema(tuple(RowColumn(**column) for column in self.columns))


def row_form(release: Release) -> RowForm:
    """How a scorer release takes rows.

    Raises:
        ReleaseError: it is of another kind, or its manifest does not say.
    """
    if release.kind != "scorer":
        raise ReleaseError(f"release {release.id} is a {release.kind}: it does not score rows that come whole")
    try:
        return RowForm.model_validate(release.manifest.get("scorer"))
    except ValidationError as error:
        raise ReleaseError(f"release {release.id}: the manifest's entry 'scorer' is wrong: {error}") from error


def graph_inputs(
    spec: FeatureSpec, inputs: Mapping[str, str], rows: pa.RecordBatch | pa.Table
) -> dict[str, np.ndarray]:
    """Raw rows as arrays by graph input: declared dtypes, nulls replaced by what stands for a missing value.

    Args:
        spec: of the release. inputs: RowForm.inputs.
        rows: a column per input feature, named as the feature; others are ignored.

    Returns:
        [N] each, [N, length] for a list feature.

    Raises:
        DataError: a column is missing or of another type; `field` names it.
    """
    made = {}
    for feature in spec.inputs:
        if feature.name not in rows.schema.names:
            raise DataError(f"the rows have no column {feature.name!r}", field=feature.name)
        kind = spec.dtype_of(feature, "int64", "int64")
        made[inputs[feature.name]] = raw_column(feature, kind, rows[feature.name])
    return made


def sample_inputs(release: Release) -> dict[str, np.ndarray]:
    """The rows that a scorer release keeps for comparing whoever serves it with its own file."""
    return graph_inputs(release.spec(), row_form(release).inputs, release.table_at(SAMPLE))
