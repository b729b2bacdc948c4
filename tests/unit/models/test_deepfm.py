"""DeepFM and the network around it: shapes, gradients, a golden value, presets."""

from __future__ import annotations

import onnxruntime as ort
import pytest
import torch

from data_exchange_center.errors import SettingsError, SpecError
from data_exchange_center.feature_spec import FeatureSpec
from offline.models.deepfm import PRESETS
from offline.models.registry import architecture, options_of, options_to_json
from offline.models.trunk import Trunk
from offline.rank.feature_encoding import FittedEncoder, run_encoder_once
from tests.unit.models.tiny_scene import tiny_encoder, tiny_ranker, tiny_request, tiny_spec


def encoded(encoder: FittedEncoder, items: int, seed: int = 0) -> dict[str, torch.Tensor]:
    session = ort.InferenceSession(encoder.model(users=1).SerializeToString(), providers=["CPUExecutionProvider"])
    return {
        name: torch.from_numpy(value)
        for name, value in run_encoder_once(session, tiny_request(encoder, items, seed)).items()
    }


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_scores_each_item_once(preset: str) -> None:
    encoder = tiny_encoder()
    outputs = tiny_ranker(encoder, preset)(encoded(encoder, 6))
    assert [tensor.shape for tensor in outputs] == [(6,)] * 4
    score, like, score_logit, like_logit = outputs
    assert torch.allclose(score, torch.sigmoid(score_logit)) and torch.allclose(like, torch.sigmoid(like_logit))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_parameter_of_a_preset_gets_a_gradient(preset: str) -> None:
    encoder = tiny_encoder()
    torch.manual_seed(0)
    ranker = tiny_ranker(encoder, preset).train()
    _, _, score, like = ranker({name: value for name, value in encoded(encoder, 40).items()})
    (score.square().sum() + like.square().sum()).backward()
    without = [name for name, parameter in ranker.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_score_does_not_depend_on_what_is_scored_along_with_it() -> None:
    encoder = tiny_encoder()
    torch.manual_seed(0)
    ranker, inputs = tiny_ranker(encoder), encoded(encoder, 9)
    items = {name for name, value in inputs.items() if len(value) == 9}
    alone = ranker({name: value[4:5] if name in items else value for name, value in inputs.items()})
    assert torch.allclose(alone[2], ranker(inputs)[2][4:5], atol=1e-6)


def test_the_network_of_a_seed_gives_its_golden_value() -> None:
    encoder = tiny_encoder()
    torch.manual_seed(7)
    score_logit = tiny_ranker(encoder)(encoded(encoder, 3))[2]
    assert score_logit.tolist() == pytest.approx([0.420218, 0.413523, 0.409816], abs=1e-5)


def test_like_does_not_see_what_only_choose_may() -> None:
    encoder = tiny_encoder()
    torch.manual_seed(0)
    ranker, inputs = tiny_ranker(encoder), encoded(encoder, 5)
    _, like, score, _ = ranker(inputs)
    _, other_like, other_score, _ = ranker({**inputs, "encoded.recall": inputs["encoded.recall"] + 3})
    assert torch.equal(like, other_like) and not torch.allclose(score, other_score)


def test_members_are_averaged_as_logits() -> None:
    encoder = tiny_encoder()
    torch.manual_seed(0)
    ranker, inputs = tiny_ranker(encoder, members=3), encoded(encoder, 4)
    each = torch.stack([ranker.member(place).logits(inputs)["choose"] for place in range(3)])
    assert torch.allclose(ranker(inputs)[2], each.mean(0), atol=1e-6)


def test_training_replaces_some_ids_of_keys_by_unknown() -> None:
    trunk = Trunk(tiny_spec(), tiny_encoder().rows, unknown_rate=0.5).train()
    ids = trunk._sometimes_unknown(torch.full((1000, 2), 4), [True, False])
    assert set(ids[:, 0].tolist()) == {1, 4} and set(ids[:, 1].tolist()) == {4}
    assert torch.equal(trunk.eval()._sometimes_unknown(ids, [True, False]), ids)


def test_features_that_share_a_table_must_agree_on_its_size() -> None:
    tree = tiny_spec().model_dump()
    next(feature for feature in tree["features"] if feature["name"] == "history")["embedding"] = 5
    with pytest.raises(SpecError, match="'history' shares a table") as error:
        Trunk(FeatureSpec.model_validate(tree), tiny_encoder().rows)
    assert error.value.field == "history"


def test_options_survive_json() -> None:
    options = options_of("deepfm", "guo", {"fm_size": 8})
    tuples = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options_to_json(options).items()
    }
    assert options_of("deepfm", changes=tuples) == options


@pytest.mark.parametrize(
    ("name", "preset", "changes", "field"),
    [
        ("deepfn", "default", {}, "rank.model"),
        ("deepfm", "nobody", {}, "rank.preset"),
        ("deepfm", "guo", {"size": 3}, "rank.model"),
    ],
)
def test_what_the_registry_does_not_know_is_named(name: str, preset: str, changes: dict[str, int], field: str) -> None:
    with pytest.raises(SettingsError) as error:
        options_of(name, preset, changes)
    assert error.value.field == field


def test_every_architecture_has_a_default_preset() -> None:
    assert "default" in architecture("deepfm").presets
