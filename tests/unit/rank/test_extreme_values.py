"""Whatever numbers a request holds, every score is finite, and torch and both graphs agree on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_exchange_center.input_blocks import pack_inputs
from offline.models.ranker import OUTPUTS
from offline.models.registry import FILES
from offline.rank.feature_encoding import encoder_session, run_encoder_once
from tests.unit.models.test_zoo import small_ranker
from tests.unit.models.tiny_scene import tiny_encoder, tiny_request
from tests.unit.rank.conftest import Graphs

Raw = dict[str, np.ndarray]
Scorer = Callable[[Raw], list[np.ndarray]]

ITEMS = 5
TOLERANCE = 5e-3  # an embedding a thousand times as long has squares whose differences keep few digits
ANY_FLOAT = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e30, -1e30, 1e-38, 0.0, -1.0, -2.0]), st.floats(width=32)
)
ANY_INTEGER = st.one_of(
    st.sampled_from([-(2**63), 2**63 - 1, 2**53, -(2**53), 0, -1]), st.integers(-(2**63), 2**63 - 1)
)
ENCODER = tiny_encoder()
NUMBERS = {
    name: value
    for name, value in tiny_request(ENCODER, ITEMS).items()
    if value.dtype == np.float32 or name in ("last_timestamp", "now", "user_id", "item_id", "history")
}


@st.composite
def requests(draw: st.DrawFn) -> Raw:
    """Any numbers in some features of a request, usual ones in the others."""
    raw = tiny_request(ENCODER, ITEMS, draw(st.integers(0, 3)))
    for name in draw(st.sets(st.sampled_from(sorted(NUMBERS)), min_size=1)):
        elements = ANY_FLOAT if raw[name].dtype == np.float32 else ANY_INTEGER
        raw[name] = draw(hnp.arrays(raw[name].dtype, raw[name].shape, elements=elements))
    return raw


@pytest.fixture(scope="module")
def scorers(tiny_graphs: Graphs) -> dict[str, Scorer]:
    """The same network in torch, in the graph with one input a feature and in the one with packed inputs."""
    _, ranker, by_name, packed = tiny_graphs
    front = encoder_session(ENCODER.model(users=1))

    def in_torch(raw: Raw) -> list[np.ndarray]:
        encoded = {name: torch.from_numpy(value) for name, value in run_encoder_once(front, raw).items()}
        with torch.no_grad():
            return [output.numpy() for output in ranker(encoded)]

    return {
        "torch": in_torch,
        "by name": lambda raw: by_name.run(OUTPUTS, raw),
        "packed": lambda raw: packed.run(OUTPUTS, pack_inputs(ENCODER.blocks, raw)),
    }


@given(raw=requests())
@settings(max_examples=150, deadline=None)
def test_any_numbers_get_finite_scores_that_torch_and_graphs_agree_on(scorers: dict[str, Scorer], raw: Raw) -> None:
    made = {name: scorer(raw) for name, scorer in scorers.items()}
    for name, outputs in made.items():
        for output, expected in zip(outputs, made["by name"], strict=True):
            assert np.isfinite(output).all(), name
            assert np.allclose(output, expected, rtol=TOLERANCE, atol=TOLERANCE), name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, -1.0])
@pytest.mark.parametrize("model", FILES)
def test_every_architecture_answers_the_extremes(model: str, value: float) -> None:
    raw = tiny_request(ENCODER, ITEMS)
    for name, usual in raw.items():
        if usual.dtype == np.float32:
            raw[name] = np.full_like(usual, value)
    encoded = run_encoder_once(encoder_session(ENCODER.model(users=1)), raw)
    with torch.no_grad():
        outputs = small_ranker(ENCODER, model, "default")(
            {name: torch.from_numpy(array) for name, array in encoded.items()}
        )
    assert all(torch.isfinite(output).all() for output in outputs)
