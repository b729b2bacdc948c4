"""Raw features as they are stored: fixed form, no missing values, in columns.

A stored feature is a scalar or a list of exactly `length` elements, padded or cut with the declared default, of the declared
dtype, and never null. The same rules make the columns that are written, the ones that are read back and the default row of
something absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center.errors import StoreError
from data_exchange_center.feature_spec import Feature
from online.stores.ports import FeatureRows

ARROW = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}
NUMPY: dict[str, Any] = {"int64": np.int64, "float32": np.float32, "string": object}


@dataclass(frozen=True)
class StoredFeature:
    """One stored feature. `dtype` is int64, float32 or string; `length` is 0 for a scalar."""

    name: str
    dtype: str
    length: int
    default: int | float | str

    @property
    def numpy_dtype(self) -> Any:
        """object for strings."""
        return NUMPY[self.dtype]

    @property
    def arrow_type(self) -> pa.DataType:
        """list<...> for a list feature."""
        element = ARROW[self.dtype]
        return pa.list_(element) if self.length else element

    def defaults(self, rows: int) -> np.ndarray:
        """[rows] or [rows, length] of the default."""
        shape = (rows, self.length) if self.length else (rows,)
        return np.full(shape, self.default, self.numpy_dtype)


class Layout:
    """Features of one dtype side by side in one matrix, in their order: which columns hold which.

    Attributes:
        features: as given.
        names: dtype -> names of its features.
        widths: dtype -> columns of its matrix.
    """

    def __init__(self, features: Sequence[StoredFeature]) -> None:
        self.features = tuple(features)
        self.names: dict[str, tuple[str, ...]] = dict.fromkeys(NUMPY, ())
        self.widths = dict.fromkeys(NUMPY, 0)
        self._places: list[tuple[str, str, int | slice]] = []
        for feature in features:
            start = self.widths[feature.dtype]
            end = self.widths[feature.dtype] = start + (feature.length or 1)
            self.names[feature.dtype] += (feature.name,)
            self._places.append((feature.name, feature.dtype, slice(start, end) if feature.length else start))

    def matrices(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays [n] or [n, length] by feature -> dtype -> [n, width], for the dtypes that there are."""
        found: dict[str, list[np.ndarray]] = {}
        for feature in self.features:
            column = columns[feature.name]
            found.setdefault(feature.dtype, []).append(column if feature.length else column[:, None])
        return {dtype: np.ascontiguousarray(np.concatenate(parts, axis=1)) for dtype, parts in found.items()}

    def rows(self, matrices: Mapping[str, np.ndarray], timestamps: np.ndarray) -> FeatureRows:
        """Matrices [n, width] by dtype as rows of features, whose columns are views."""
        columns = {name: matrices[dtype][:, place] for name, dtype, place in self._places}
        return FeatureRows(columns, timestamps, {dtype: (self.names[dtype], matrices[dtype]) for dtype in matrices})


def stored_features(features: Iterable[Feature], id_types: dict[str, str]) -> list[StoredFeature]:
    """What is stored of a spec's features.

    Args:
        id_types: feature -> int64 or string, for features of dtype `id`: as their column in the release says.
    """
    stored = []
    for feature in features:
        dtype = id_types[feature.name] if feature.dtype == "id" else feature.dtype
        default: Any = feature.missing
        if dtype == "string":
            default = "" if feature.default is None else str(default)
        else:
            default = int(default) if dtype == "int64" else float(default)
        stored.append(StoredFeature(feature.name, dtype, feature.length if feature.is_list else 0, default))
    return stored


def id_types(features: Iterable[Feature], table: pa.Table) -> dict[str, str]:
    """The element type of each `id` feature's column: int64 or string."""
    found = {}
    for feature in features:
        if feature.dtype == "id":
            kind = table.schema.field(feature.name).type
            element = kind.value_type if pa.types.is_list(kind) else kind
            found[feature.name] = "string" if pa.types.is_string(element) else "int64"
    return found


def stored_column(feature: StoredFeature, values: pa.ChunkedArray) -> pa.Array:
    """A release's column in its stored form; StoreError names a column of the wrong type."""
    column = _plain(values)
    element = ARROW[feature.dtype]
    try:
        if not feature.length:
            return pc.fill_null(column.cast(element), pa.scalar(feature.default, element))
        return fixed_length(feature, column, element)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, AttributeError) as error:
        expected = f"list<{element}>" if feature.length else str(element)
        raise StoreError(
            f"feature {feature.name!r}: column is {column.type}, the feature spec says {expected}: {error}",
            field=feature.name,
        ) from error


def fixed_length(feature: StoredFeature, column: pa.Array, element: pa.DataType) -> pa.Array:
    """Every list padded or cut at its end to the declared length."""
    rows, width = len(column), feature.length
    flat = pc.fill_null(pc.list_flatten(column).cast(element), pa.scalar(feature.default, element))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    places = starts[:, None] + np.arange(width)
    beyond = np.arange(width) >= lengths[:, None]
    padded = pa.concat_arrays([flat, pa.array([feature.default], element)])
    places[beyond] = len(flat)  # the default, appended to the elements
    taken = padded.take(pa.array(places.ravel()))
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    return pa.ListArray.from_arrays(offsets, taken)


def numpy_column(feature: StoredFeature, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A stored column as an array [n] or [n, length]; StoreError when a list has another length."""
    if not feature.length:
        return np.asarray(_plain(column).to_numpy(zero_copy_only=False), feature.numpy_dtype)
    array = _plain(column)
    flat = np.asarray(pc.list_flatten(array).to_numpy(zero_copy_only=False), feature.numpy_dtype)
    if len(flat) != len(array) * feature.length:
        raise StoreError(
            f"feature {feature.name!r}: stored lists are not of length {feature.length}", field=feature.name
        )
    return flat.reshape(len(array), feature.length)


def to_text(features: Sequence[StoredFeature]) -> str:
    """JSON, for the store's own metadata: readers need nothing but the store."""
    return json.dumps([asdict(feature) for feature in features], ensure_ascii=False)


def from_text(text: str) -> list[StoredFeature]:
    """What `to_text` wrote."""
    return [StoredFeature(**entry) for entry in json.loads(text)]


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
