"""A user's raw features as one value, so that a request decodes one instead of one per feature.

    int64 features after the moment as of which the row holds | float32 features | string features as a JSON list

Numbers are little-endian, lists have their declared length, and each kind is in declared order: the reader knows the form from the
view's metadata, as every reader of stored features does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import StoreError
from online.stores.ports import FeatureRows
from online.stores.stored_features import Layout, StoredFeature, numpy_column

INTEGER, FLOAT = np.dtype("<i8"), np.dtype("<f4")


def pack_rows(features: Sequence[StoredFeature], as_of: pa.Array, columns: Mapping[str, pa.Array]) -> list[bytes]:
    """One value per row.

    Args:
        as_of: int64, unix seconds. columns: feature -> stored column.
    """
    made = {feature.name: numpy_column(feature, columns[feature.name]).reshape(len(as_of), -1) for feature in features}
    moments = np.asarray(as_of.to_numpy(zero_copy_only=False), np.int64)[:, None]
    integers = _side_by_side([moments, *(made[f.name] for f in features if f.dtype == "int64")], INTEGER)
    floats = _side_by_side(
        [np.empty((len(as_of), 0)), *(made[f.name] for f in features if f.dtype == "float32")], FLOAT
    )
    strings = [made[feature.name].tolist() for feature in features if feature.dtype == "string"]
    texts = [[value for column in strings for value in column[row]] for row in range(len(as_of))]
    return [
        integers[row].tobytes() + floats[row].tobytes() + json.dumps(texts[row], ensure_ascii=False).encode()
        for row in range(len(as_of))
    ]


def unpack_row(layout: Layout, value: bytes) -> FeatureRows:
    """The row (n = 1) that `pack_rows` packed of the layout's features.

    Raises:
        StoreError: the value is of another form.
    """
    widths = layout.widths
    try:
        integers = np.frombuffer(value, INTEGER, 1 + widths["int64"])
        floats = np.frombuffer(value, FLOAT, widths["float32"], integers.nbytes)
        strings = np.array(json.loads(value[integers.nbytes + floats.nbytes :]), object)
    except ValueError as error:
        raise StoreError(
            f"user features: a row of {len(value)} bytes is not readable: {error}; load them again"
        ) from error
    if strings.shape != (widths["string"],):
        raise StoreError(
            f"user features: a row holds {strings.size} strings, expected {widths['string']}: load them again"
        )
    return layout.rows({"int64": integers[None, 1:], "float32": floats[None], "string": strings[None]}, integers[:1])


def _side_by_side(parts: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype)
