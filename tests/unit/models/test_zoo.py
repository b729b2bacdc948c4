"""What holds for every architecture and preset: shapes, gradients, export, scenes without a user's side, golden values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from data_exchange_center.errors import SettingsError
from offline.models.layers import Sides
from offline.models.numbers import HEADS, Head
from offline.models.ranker import OUTPUTS, Ranker, config_for
from offline.models.registry import FILES, architecture, options_of
from offline.rank.feature_encoding import FittedEncoder, run_encoder_once
from offline.rank.graph_export import export_graph
from tests.unit.models.tiny_scene import clicks_encoder, clicks_rows, tiny_encoder, tiny_request, two_sided_encoder

pytestmark = pytest.mark.usefixtures("kept_operators")
SMALL = {"dropout": 0.0, "hidden": (16, 8), "size": 4, "fm_size": 4}  # those that the architecture has
VARIANTS = [(name, preset) for name in FILES for preset in architecture(name).presets]
EXPORTED = [*((name, "default") for name in FILES), ("din", "dot")]
EXPORTED_WITHOUT_USER = [  # a preset of other operations than the default's, where there is one
    ("autoint", "plus"),
    ("dcnv2", "mixture"),
    ("deepfm", "guo"),
    ("dlrm", "default"),
    ("ffm", "default"),
    ("finalmlp", "no_gates"),
    ("gate_dnn", "bit"),
    ("lr", "default"),
    ("xdeepfm", "full"),
]
NO_SEQUENCE = [name for name in FILES if name != "din"]
Named = dict[str, torch.Tensor]


def small_ranker(
    encoder: FittedEncoder, name: str, preset: str, seed: int = 0, heads: tuple[Head, ...] = HEADS
) -> Ranker:
    """Untrained, but with every weight away from zero, so that nothing is hidden by what starts at zero."""
    torch.manual_seed(seed)
    has = vars(options_of(name, preset))
    changes: dict[str, Any] = {key: value for key, value in SMALL.items() if key in has}
    ranker = Ranker(encoder.spec, config_for(name, preset, encoder.rows, 1, encoder.id_types, heads, **changes)).eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
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


@pytest.mark.parametrize(("name", "preset"), EXPORTED)
def test_the_exported_graph_gives_what_torch_gives(name: str, preset: str) -> None:
    encoder = two_sided_encoder()
    ranker = small_ranker(encoder, name, preset, heads=("like",))
    graph = ort.InferenceSession(export_graph(ranker, encoder).SerializeToString())
    for items in (1, 2, 7, 300):
        raw = tiny_request(encoder, items, seed=items)  # a third of its ids are unknown, some empty
        _assert_same(ranker, encoder, graph, raw)
    raw["popularity"][:4] = [np.nan, np.inf, -np.inf, 3e38]
    raw["text"][:2], raw["text"][2:4] = np.float32(1e38), np.nan
    raw["events"][:], raw["history"][:] = np.nan, 0
    _assert_same(ranker, encoder, graph, raw, 1e-5)


@pytest.mark.parametrize(("name", "preset"), EXPORTED_WITHOUT_USER)
def test_a_scene_without_a_users_side_is_exported(name: str, preset: str) -> None:
    encoder = clicks_encoder(numbers=False)
    ranker = small_ranker(encoder, name, preset, heads=("like",))
    graph = ort.InferenceSession(export_graph(ranker, encoder).SerializeToString())
    for rows in (1, 50):
        _assert_same(ranker, encoder, graph, clicks_rows(encoder, rows))


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("name", NO_SEQUENCE)
def test_a_scene_without_a_users_side_is_learned(name: str, numbers: bool) -> None:
    encoder = clicks_encoder(numbers)
    member = small_ranker(encoder, name, "default").member(0).train()
    inputs = encoded(encoder, clicks_rows(encoder, 6))
    handed_in = Sides(torch.zeros(1, 0), member.trunk.numbers(inputs)["like"].item.expand(6, -1))  # as training does
    logit = member.heads["like"](member.trunk.assemble(inputs, handed_in))
    assert logit.shape == (6,)
    logit.sum().backward()


def test_din_says_what_a_scene_without_a_sequence_lacks() -> None:
    with pytest.raises(SettingsError, match="'din' needs a sequence") as error:
        small_ranker(clicks_encoder(numbers=True), "din", "default")
    assert error.value.field == "rank.model"


def _assert_same(
    ranker: Ranker,
    encoder: FittedEncoder,
    graph: ort.InferenceSession,
    raw: dict[str, np.ndarray],
    tolerance: float = 1e-6,
) -> None:
    """Probabilities agree to the tolerance, logits to five times of it, relative to their size where that is above 1."""
    made = dict(zip(OUTPUTS, graph.run(list(OUTPUTS), raw), strict=True))
    with torch.inference_mode():
        expected = dict(zip(OUTPUTS, ranker(encoded(encoder, raw)), strict=True))
    for output in OUTPUTS:
        assert made[output].shape == expected[output].shape and np.isfinite(made[output]).all()
        apart = np.abs(made[output] - expected[output].numpy()) / np.maximum(np.abs(made[output]), 1)
        assert apart.max() <= (5 * tolerance if output.endswith("logit") else tolerance), (output, apart.max())


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown model 'deepfn' \(did you mean 'deepfm'\?\)"):
        architecture("deepfn")


GOLDEN = {  # logits of `like` for two items, seed 7
    "autoint": [-0.08159, -0.07669],
    "dcn": [9.09807, 0.63933],
    "dcnv2": [-2.27938, -1.83152],
    "deepfefm": [0.21685, 0.19906],
    "deepfm": [0.17256, 0.28175],
    "din": [-0.22345, -0.27802],
    "dlrm": [-0.31862, -0.31348],
    "dnn": [-0.03199, -0.01501],
    "ffm": [-5.91065, -1.12017],
    "finalmlp": [-0.21931, -0.15096],
    "fm": [-0.33861, -0.19033],
    "gate_dnn": [0.08919, 0.09568],
    "lr": [0.04292, -0.07519],
    "wide_deep": [0.1086, 0.08745],
    "xdeepfm": [0.53166, 0.33353],
}


@pytest.mark.parametrize("name", FILES)
def test_the_network_of_a_seed_gives_its_golden_value(name: str) -> None:
    encoder = tiny_encoder()
    ranker = small_ranker(encoder, name, "default", seed=7)
    made = ranker.logits(encoded(encoder, tiny_request(encoder, 2)))["like"]
    assert made.tolist() == pytest.approx(GOLDEN[name], abs=1e-4)
