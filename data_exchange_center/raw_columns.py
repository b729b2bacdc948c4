"""A table's column as the array that the graph takes: declared dtype, nothing missing, lists of the declared length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import Feature
from data_exchange_center.rows.categories import category_ids

NUMPY: dict[str, Any] = {"int64": np.int64, "float32": np.float32, "string": object}
ARROW = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}


def missing_value(feature: Feature, kind: str) -> int | float | str:
    """What stands for a missing element of a feature whose dtype is resolved to `kind`: the declared default, else 0 or ""."""
    if kind == "string":
        return "" if feature.default is None else str(feature.default)
    return int(feature.missing) if kind == "int64" else float(feature.missing)


def raw_column(feature: Feature, kind: str, column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Converts one column.

    Args:
        feature: its declaration. kind: its dtype with `id` resolved: int64, float32 or string.
        column: scalars, or lists for a list feature; nulls allowed.

    Returns:
        [rows], or [rows, length] for a list feature: truncated, or padded at the end with the missing value. A missing number of
        a candidate is NaN, which the graph replaces.

    Raises:
        DataError: the column's type is not the declared one; the feature is named.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    missing = pa.scalar(missing_value(feature, kind), ARROW[kind])
    try:
        if not feature.is_list:
            if kind == "float32" and feature.entity == "candidate":
                missing = pa.scalar(float("nan"), pa.float32())
            return _numpy(pc.fill_null(typed_values(feature, values, kind), missing), kind)
        flat = pc.fill_null(typed_values(feature, pc.list_flatten(values), kind), missing)
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        wanted = f"list<{kind}>" if feature.is_list else kind
        raise DataError(
            f"feature {feature.name!r}: the column is {values.type}, declared is {wanted}: {error}", field=feature.name
        ) from error
    made = np.full((len(values), feature.length), missing.as_py(), NUMPY[kind])
    kept = np.arange(feature.length) < lengths[:, None]
    starts = np.cumsum(lengths) - lengths
    if feature.keep == "last":
        starts = starts + np.maximum(lengths - feature.length, 0)
    made[kept] = _numpy(flat, kind)[(starts[:, None] + np.arange(feature.length))[kept]]
    return made


def typed_values(feature: Feature, values: pa.Array, kind: str) -> pa.Array:
    """Elements in the feature's type, nulls kept; text becomes an id where the feature says `hash`."""
    if feature.hash and (pa.types.is_string(values.type) or pa.types.is_binary(values.type)):
        return category_ids(values)
    return values.cast(ARROW[kind])


def _numpy(values: pa.Array, kind: str) -> np.ndarray:
    return np.asarray(values.to_numpy(zero_copy_only=False), NUMPY[kind])
