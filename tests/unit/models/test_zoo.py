"""What holds for every architecture and preset: shapes, gradients, export, scenes without a user's side, golden values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from data_exchange_center.errors import SettingsError
from offline.models.layers import Sides
from offline.models.numbers import HEADS
from offline.models.ranker import OUTPUTS, Ranker, config_for
from offline.models.registry import FILES, architecture, options_of
from offline.rank.feature_encoding import FittedEncoder, run_encoder_once
from offline.rank.graph_export import export_graph
from tests.unit.models.tiny_scene import clicks_encoder, clicks_rows, tiny_encoder, tiny_request

SMALL = {"dropout": 0.0, "hidden": (8, 4), "size": 4, "fm_size": 4}  # those that the architecture has
VARIANTS = [(name, preset) for name in FILES for preset in architecture(name).presets]
NEEDS_SEQUENCE = {"din"}
Named = dict[str, torch.Tensor]


def small_ranker(encoder: FittedEncoder, name: str, preset: str, seed: int = 0) -> Ranker:
    """Untrained, but with every weight away from zero, so that nothing is hidden by what starts at zero."""
    torch.manual_seed(seed)
    has = vars(options_of(name, preset))
    changes: dict[str, Any] = {key: value for key, value in SMALL.items() if key in has}
    ranker = Ranker(encoder.spec, config_for(name, preset, encoder.rows, 1, encoder.id_types, **changes)).eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return ranker


def encoded(encoder: FittedEncoder, raw: dict[str, np.ndarray]) -> Named:
    """What the encoder's graph makes of raw inputs."""
    session = ort.InferenceSession(encoder.model(users=1).SerializeToString(), providers=["CPUExecutionProvider"])
    return {name: torch.from_numpy(value) for name, value in run_encoder_once(session, raw).items()}


def of_users(encoder: FittedEncoder) -> set[str]:
    """Names of the encoded inputs on the user's side."""
    names = [feature.name for feature in encoder.spec.of("user", "context")]
    return {f"{prefix}.{name}" for prefix in ("encoded", "raw") for name in names}


def logits(ranker: Ranker, inputs: Named) -> torch.Tensor:
    """Of both heads, [heads, *i]."""
    return torch.stack([ranker.logits(inputs)[head] for head in HEADS])


@pytest.fixture(scope="module")
def scene() -> tuple[FittedEncoder, list[Named]]:
    """The encoder and the encoded requests of three users with five items each."""
    encoder = tiny_encoder()
    return encoder, [encoded(encoder, tiny_request(encoder, 5, seed)) for seed in range(3)]


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_requests_lists_and_rows_get_the_same_logits(
    name: str, preset: str, scene: tuple[FittedEncoder, list[Named]]
) -> None:
    encoder, requests = scene
    ranker, user_side = small_ranker(encoder, name, preset), of_users(encoder)
    one_by_one = torch.stack([logits(ranker, request) for request in requests], 1)  # [1] with [N], a request at a time
    assert one_by_one.shape == (2, 3, 5)
    lists = {key: torch.stack([request[key] for request in requests]) for key in requests[0]}  # [B, 1] with [B, N]
    assert torch.allclose(logits(ranker, lists), one_by_one, atol=1e-5)
    rows = {  # [B] with [B]
        key: (value.repeat_interleave(5, 1) if key in user_side else value).flatten(0, 1)
        for key, value in lists.items()
    }
    assert torch.allclose(logits(ranker, rows).reshape(2, 3, 5), one_by_one, atol=1e-5)


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_a_gradient_reaches_every_parameter(name: str, preset: str, scene: tuple[FittedEncoder, list[Named]]) -> None:
    encoder, _ = scene
    ranker = small_ranker(encoder, name, preset).train()
    logits(ranker, encoded(encoder, tiny_request(encoder, 40))).square().sum().backward()
    without = [key for key, value in ranker.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_the_exported_graph_gives_what_torch_gives(name: str, preset: str) -> None:
    encoder = tiny_encoder()
    ranker = small_ranker(encoder, name, preset)
    graph = ort.InferenceSession(export_graph(ranker, encoder).SerializeToString())
    for items in (1, 2, 7, 300):
        raw = tiny_request(encoder, items, seed=items)  # a third of its ids are unknown, some empty
        _assert_same(ranker, encoder, graph, raw, 1e-6)
    raw["popularity"][:4] = [np.nan, np.inf, -np.inf, 3e38]
    raw["text"][:2], raw["text"][2:4] = np.float32(1e38), np.nan
    raw["events"][:], raw["history"][:], raw["last_timestamp"][:] = np.nan, 0, -(2**63)
    _assert_same(ranker, encoder, graph, raw, 1e-6)


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("name", [name for name in FILES if name not in NEEDS_SEQUENCE])
def test_a_scene_without_a_users_side_is_scored_and_exported(name: str, numbers: bool) -> None:
    encoder = clicks_encoder(numbers)
    ranker = small_ranker(encoder, name, "default")
    graph = ort.InferenceSession(export_graph(ranker, encoder).SerializeToString())
    for rows in (1, 50):
        _assert_same(ranker, encoder, graph, clicks_rows(encoder, rows), 1e-6)
    trunk = ranker.member(0).trunk
    inputs = encoded(encoder, clicks_rows(encoder, 6))
    numbers_of = Sides(torch.zeros(1, 0), trunk.numbers(inputs)["like"].item.expand(6, -1))  # as training hands them in
    assert ranker.member(0).heads["like"](trunk.assemble(inputs, numbers_of)).shape == (6,)


def _assert_same(
    ranker: Ranker, encoder: FittedEncoder, graph: ort.InferenceSession, raw: dict[str, np.ndarray], tolerance: float
) -> None:
    """Logits are compared relative to their size where that is above 1."""
    made = dict(zip(OUTPUTS, graph.run(list(OUTPUTS), raw), strict=True))
    with torch.inference_mode():
        expected = dict(zip(OUTPUTS, ranker(encoded(encoder, raw)), strict=True))
    for output in OUTPUTS:
        assert made[output].shape == expected[output].shape and np.isfinite(made[output]).all()
        apart = np.abs(made[output] - expected[output].numpy()) / np.maximum(np.abs(made[output]), 1)
        assert apart.max() <= tolerance, (output, apart.max())


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown model 'deepfn' \(did you mean 'deepfm'\?\)"):
        architecture("deepfn")
