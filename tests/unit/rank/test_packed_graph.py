"""The released graph, whose inputs are packed: it computes what the graph with one input a feature computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from data_exchange_center.encoded_matrices import matrices
from data_exchange_center.encoder import ENCODED, RAW, raw_inputs
from data_exchange_center.errors import DataError
from data_exchange_center.input_blocks import pack_inputs, unpack_inputs
from offline.models.ranker import OUTPUTS
from offline.rank.feature_encoding import FittedEncoder, encoder_session, run_encoder_once
from tests.unit.models.tiny_scene import clicks_encoder, clicks_rows, tiny_encoder, tiny_request
from tests.unit.rank.conftest import Graphs

Raw = dict[str, np.ndarray]


def extreme(raw: Raw) -> Raw:
    """The same request with missing, infinite and huge numbers."""
    raw["popularity"][:4] = [np.nan, np.inf, -np.inf, 3e38]
    raw["text"][:2], raw["text"][2:4] = np.float32(1e38), np.nan
    raw["events"][:], raw["history"][:], raw["last_timestamp"][:] = np.nan, 0, -(2**63)
    return raw


@pytest.mark.parametrize("ids", ["int64", "string"])
@pytest.mark.parametrize("changed", [lambda raw: raw, extreme])
def test_packed_features_are_encoded_as_single_ones(ids: str, changed: Callable[[Raw], Raw]) -> None:
    encoder = tiny_encoder(ids)
    raw = tiny_request(encoder, 6)
    if ids == "int64":  # string ids have no huge ones
        raw = changed(raw)
    _assert_same_encoding(encoder, raw)


@pytest.mark.parametrize("numbers", [False, True])
def test_a_scene_of_rows_is_encoded_as_well(numbers: bool) -> None:
    encoder = clicks_encoder(numbers)
    _assert_same_encoding(encoder, clicks_rows(encoder, 7))


def _assert_same_encoding(encoder: FittedEncoder, raw: Raw) -> None:
    single = run_encoder_once(encoder_session(encoder.model(users=1)), raw)
    packed = run_encoder_once(encoder_session(encoder.block_model()), pack_inputs(encoder.blocks, raw))
    for matrix in matrices(encoder.spec, [feature.name for feature in raw_inputs(encoder.spec)]):
        prefix = RAW if matrix.kind in ("floats", "moments") else ENCODED
        expected = np.stack([single.pop(prefix + name) for name in matrix.features], -1)
        assert packed[matrix.name].dtype == expected.dtype
        assert np.array_equal(packed.pop(matrix.name), expected), matrix.name
    assert all(np.array_equal(packed[name], single[name]) for name in single) and set(packed) == set(single)


@pytest.mark.parametrize("items", [1, 300])
def test_the_packed_graph_gives_the_scores_of_the_other(items: int, tiny_graphs: Graphs) -> None:
    encoder, _, single, packed = tiny_graphs
    raw = tiny_request(encoder, items)
    for request in [raw] if items < 4 else [raw, extreme(raw)]:
        expected, made = single.run(OUTPUTS, request), packed.run(OUTPUTS, pack_inputs(encoder.blocks, request))
        for one, other in zip(expected, made, strict=True):
            assert np.isfinite(one).all() and np.abs(one - other).max() <= 1e-6


def test_what_is_packed_comes_out_again_as_views() -> None:
    encoder = tiny_encoder("string")
    raw = tiny_request(encoder, 3)
    packed = pack_inputs(encoder.blocks, raw)
    assert {"user_id", "item_id", "user.float32", "item.string", "candidate.float32"} <= set(packed)
    again = unpack_inputs(encoder.blocks, packed)
    assert set(again) == set(raw) and all(np.array_equal(again[name], raw[name]) for name in raw)
    again["popularity"][0] = 7
    assert unpack_inputs(encoder.blocks, packed)["popularity"][0] == 7


def test_a_feature_that_is_missing_is_named() -> None:
    encoder = tiny_encoder()
    raw = tiny_request(encoder, 3)
    del raw["popularity"]
    with pytest.raises(DataError, match="'popularity' was not delivered"):
        pack_inputs(encoder.blocks, raw)
