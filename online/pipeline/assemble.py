"""The scorer's inputs from the spec: raw values, in the dtypes that the graph declares, user side once, item side per candidate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_exchange_center.errors import StoreError
from data_exchange_center.feature_spec import Feature
from data_exchange_center.input_blocks import InputBlock, unpack_inputs
from online.pipeline.release_view import ID_DTYPES, ReleaseView
from online.stores.ports import FeatureRows, Id

_DTYPES: dict[str, type] = {"int64": np.int64, "float32": np.float32, "string": object}
_NONE = np.empty(0, np.int64)


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
    own = {"user": user, "item": items, "candidate": FeatureRows(dict(candidates), _NONE)}
    inputs: dict[str, np.ndarray] = {}
    for block in view.blocks:
        if block.is_key:
            inputs[block.name] = _ids(view, user_id) if block.entity == "user" else item_ids
        elif block.entity == "context":
            inputs[block.name] = np.full((1, block.width), now, _DTYPES[block.dtype])
        else:
            inputs[block.name] = _matrix(block, own[block.entity])
    if view.blocks:
        return inputs
    for feature in view.spec.inputs:
        if feature.key:
            inputs[feature.name] = _ids(view, user_id) if feature.entity == "user" else item_ids
        elif feature.entity == "context":
            inputs[feature.name] = np.array([now], _DTYPES[feature.dtype])
        else:
            inputs[feature.name] = _column(feature, own[feature.entity].columns)
    return inputs


def _ids(view: ReleaseView, user_id: Id) -> np.ndarray:
    return np.array([user_id], ID_DTYPES[view.user_type])


def _matrix(block: InputBlock, rows: FeatureRows) -> np.ndarray:
    """The rows' own matrix where it holds what the block does; else one put together."""
    names, matrix = rows.matrices.get(block.dtype, ((), _NONE))
    if names == block.names:
        return matrix
    return block.pack({feature.name: _column(feature, rows.columns) for feature in block.features})


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
