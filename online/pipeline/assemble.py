"""The scorer's inputs from the spec: raw values, in the dtypes that the graph declares, user side once, item side per candidate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_exchange_center.errors import StoreError
from data_exchange_center.feature_spec import Feature
from data_exchange_center.input_blocks import pack_inputs, unpack_inputs
from online.pipeline.release_view import ID_DTYPES, ReleaseView
from online.stores.ports import FeatureRows, Id

_DTYPES: dict[str, type] = {"int64": np.int64, "float32": np.float32, "string": object}


def assemble(
    view: ReleaseView,
    user_id: Id,
    item_ids: np.ndarray,
    now: int,
    user: FeatureRows,
    items: FeatureRows,
    candidates: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Every input of the release's graph.

    Args:
        user_id: key of the user features.
        item_ids: [N], keys of the item features.
        now: unix seconds; the one context value that the server makes.
        user: one row. items: N rows, aligned with `item_ids`.
        candidates: feature -> float32 [N], the recall scores.

    Returns:
        [1, ...] for user and context features, [N, ...] for item and candidate features: by feature, or packed in the blocks of
        the release's graph (data_exchange_center/input_blocks.py).

    Raises:
        StoreError: a store did not deliver a declared feature.
    """
    inputs: dict[str, np.ndarray] = {}
    for feature in view.spec.inputs:
        if feature.key:
            ids = np.array([user_id], ID_DTYPES[view.user_type]) if feature.entity == "user" else item_ids
            inputs[feature.name] = ids
        elif feature.entity == "context":
            inputs[feature.name] = np.array([now], _DTYPES[feature.dtype])
        else:
            source = {"user": user.columns, "item": items.columns, "candidate": candidates}[feature.entity]
            inputs[feature.name] = _column(feature, source)
    return pack_inputs(view.blocks, inputs)


def _column(feature: Feature, source: Mapping[str, np.ndarray]) -> np.ndarray:
    try:
        values = source[feature.name]
    except KeyError as error:
        raise StoreError(f"feature {feature.name!r} was not delivered", field=feature.name) from error
    expected = _DTYPES.get(feature.dtype)
    return values if expected is None or values.dtype == expected else values.astype(expected)


def take(inputs: Mapping[str, np.ndarray], view: ReleaseView, places: np.ndarray) -> dict[str, np.ndarray]:
    """Raw features by name of some candidates only; user and context values stay."""
    shared = {feature.name for feature in view.spec.of("user", "context")}
    inputs = unpack_inputs(view.blocks, inputs)
    return {name: values if name in shared else values[places] for name, values in inputs.items()}
