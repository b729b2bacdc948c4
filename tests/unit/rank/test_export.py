"""The exported graph computes what torch computes, for any number of items, known ids or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from data_exchange_center.errors import DataError, SettingsError
from offline.models.ranker import CONFIG_FILE, OUTPUTS, WEIGHTS_FILE, Ranker
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.graph_export import export_graph, renamed
from offline.rank.torch_scorer import TorchScorer
from tests.unit.models.tiny_scene import tiny_encoder, tiny_ranker, tiny_request

pytestmark = pytest.mark.usefixtures("kept_operators")


@pytest.fixture(scope="module")
def exported(kept_operators: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[FittedEncoder, Path]:
    """A saved network with random weights and calibration, and its graph."""
    torch.manual_seed(0)
    encoder = tiny_encoder("string")
    ranker = tiny_ranker(encoder, members=2)
    ranker.calibration.copy_(torch.tensor([[0.7, 0.2], [1.3, -2.0]]))
    folder = tmp_path_factory.mktemp("export")
    ranker.save(folder)
    encoder.save(folder)
    onnx.save(export_graph(ranker, encoder), folder / "model.onnx")
    return encoder, folder


@pytest.mark.parametrize("items", [1, 2, 7, 300])
def test_the_graph_gives_what_torch_gives(exported: tuple[FittedEncoder, Path], items: int) -> None:
    encoder, folder = exported
    graph, scorer = ort.InferenceSession(folder / "model.onnx"), TorchScorer(folder)
    inputs = tiny_request(encoder, items, seed=items)
    made = dict(zip(OUTPUTS, graph.run(list(OUTPUTS), inputs), strict=True))
    expected = scorer(inputs)
    for name in OUTPUTS:
        assert made[name].dtype == np.float32 and made[name].shape == (items,)
        assert np.abs(made[name] - expected[name]).max() <= 2e-6


def test_broken_and_extreme_numbers_still_give_finite_scores(exported: tuple[FittedEncoder, Path]) -> None:
    encoder, folder = exported
    inputs = tiny_request(encoder, 4)
    inputs["popularity"] = np.array([np.nan, np.inf, -np.inf, 3e38], np.float32)
    inputs["text"][:] = np.float32(1e38)
    inputs["events"][:] = np.nan
    inputs["last_timestamp"][:] = -(2**63)
    outputs = ort.InferenceSession(folder / "model.onnx").run(list(OUTPUTS), inputs)
    assert all(np.isfinite(values).all() for values in outputs)


def test_the_graph_takes_raw_features_under_their_own_names(exported: tuple[FittedEncoder, Path]) -> None:
    encoder, folder = exported
    model = onnx.load(folder / "model.onnx")
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert list(shapes) == [feature.name for feature in encoder.spec.inputs]
    assert shapes["user_id"] == [1] and shapes["history"] == [1, 4] and shapes["genres"] == ["items", 3]
    assert model.ir_version == 10 and {(o.domain, o.version) for o in model.opset_import} >= {
        ("", 20),
        ("ai.onnx.ml", 3),
    }


def test_a_saved_network_comes_back_and_a_broken_one_is_named(
    exported: tuple[FittedEncoder, Path], tmp_path: Path
) -> None:
    _, folder = exported
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    first, second = Ranker.load(folder).state_dict(), Ranker.load(tmp_path).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    content = (folder / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"network\.safetensors"):
        Ranker.load(tmp_path)


def test_inputs_and_outputs_can_be_named_and_what_is_not_asked_for_is_cut_off(
    exported: tuple[FittedEncoder, Path],
) -> None:
    encoder, folder = exported
    model = onnx.load(folder / "model.onnx")
    named = renamed(model, {"age": "years_old"}, {"like": "ctr"})
    assert [value.name for value in named.graph.output] == ["ctr"]
    inputs = tiny_request(encoder, 5)
    expected = ort.InferenceSession(folder / "model.onnx").run(["like"], inputs)[0]
    inputs["years_old"] = inputs.pop("age")
    session = ort.InferenceSession(named.SerializeToString())
    kept = {given.name for given in session.get_inputs()}
    assert "years_old" in kept
    found = session.run(["ctr"], {name: value for name, value in inputs.items() if name in kept})[0]
    assert np.array_equal(found, expected)
    assert len(named.graph.node) < len(model.graph.node)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [({"nothing": "x"}, {"like": "like"}), ({"age": "genres"}, {"like": "ctr"}), ({}, {"like": ""})],
)
def test_names_that_are_not_there_or_taken_are_refused(
    exported: tuple[FittedEncoder, Path], inputs: dict[str, str], outputs: dict[str, str]
) -> None:
    with pytest.raises(SettingsError):
        renamed(onnx.load(exported[1] / "model.onnx"), inputs, outputs)
