"""Texts become vectors: the model's as it was trained, and different ones for what its tokenizer cannot read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.settings import Settings, TextSettings, load_settings
from data_exchange_center.text_encoder import ABOUT, MODEL, TextEncoder
from offline.text.sentence_model import make_encoder, model_folder, open_text_encoder, text_encoder
from offline.text.vector_cache import CachedVectors
from tests.tiny_text import HEADS, HIDDEN, INNER, LAYERS, tiny_weights, write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("tiny")
    made = folder / "encoder"
    made.mkdir()
    make_encoder(write_tiny_model(folder / "model"), TextSettings(ngram_buckets=32), made)
    return TextEncoder(made)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("real")
    return open_text_encoder(load_settings(environment={"MARQUEE_DATA__STORE": str(folder)}))


def with_model(store: Path, model: Path, **text: int) -> Settings:
    return load_settings(environment={}).with_values(
        **{"data.store": str(store), "text.model": str(model)},
        **{f"text.{name}": value for name, value in text.items()},
    )


def test_the_real_model_gives_the_similarities_that_its_publisher_shows(real: TextEncoder) -> None:
    vectors = real.encode(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    assert vectors.shape == (4, 512) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0] @ vectors[1:].T, [0.6945773, 0.9429150, 0.2568760], atol=2e-6)


def test_brands_and_complaints_that_the_model_cannot_read_differ(real: TextEncoder) -> None:
    for texts, bound in (
        (["宝马", "奔驰", "奥迪", "比亚迪", "蔚来", "小鹏"], 0.7),
        (["刹车有异响", "变速箱换挡顿挫", "空调不制冷", "发动机怠速抖动"], 0.7),
        ([f"{brand} {said}" for brand in ("宝马", "奔驰", "奥迪") for said in ("刹车有异响", "空调不制冷")], 0.95),
    ):
        vectors = real.encode(texts)
        closest = max(float(one @ other) for one, other in itertools.combinations(vectors, 2))
        assert closest < bound, texts
    without = real.encode(["宝马", "奥迪"])[:, :384]
    assert float(without[0] @ without[1]) > 0.49  # half of length 1: the model alone takes them for the same


def test_the_graph_is_a_bert_as_torch_computes_it(tiny: TextEncoder) -> None:
    weights = {name: torch.from_numpy(value) for name, value in tiny_weights().items()}
    ids = torch.tensor([[2, 6, 7, 8, 9, 3]])  # [CLS] door ##s is broken [SEP]
    hidden = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][:6]
    hidden = hidden + weights["embeddings.token_type_embeddings.weight"][0]
    norm = [weights[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")]
    hidden = torch.nn.functional.layer_norm(hidden, (HIDDEN,), *norm, eps=1e-12)
    for layer in range(LAYERS):
        block = torch.nn.TransformerEncoderLayer(
            HIDDEN, HEADS, INNER, dropout=0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        ).eval()
        at = f"encoder.layer.{layer}"
        state = {}
        for part in ("weight", "bias"):
            parts = [weights[f"{at}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"self_attn.in_proj_{part}"] = torch.cat(parts)
            state[f"self_attn.out_proj.{part}"] = weights[f"{at}.attention.output.dense.{part}"]
            state[f"linear1.{part}"] = weights[f"{at}.intermediate.dense.{part}"]
            state[f"linear2.{part}"] = weights[f"{at}.output.dense.{part}"]
            state[f"norm1.{part}"] = weights[f"{at}.attention.output.LayerNorm.{part}"]
            state[f"norm2.{part}"] = weights[f"{at}.output.LayerNorm.{part}"]
        block.load_state_dict(state)
        with torch.no_grad():
            hidden = block(hidden)
    expected = torch.nn.functional.normalize(hidden.mean(1), dim=-1).numpy()
    np.testing.assert_allclose(tiny.encode(["Doors is broken"])[:, :HIDDEN], expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_has_a_vector_of_length_1_whatever_goes_along_with_it(tiny: TextEncoder, texts: list[str]) -> None:
    together = tiny.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(tiny.encode([text])[0], vector, atol=1e-5)


def test_what_the_model_reads_has_no_n_grams_and_order_of_the_unread_counts(tiny: TextEncoder) -> None:
    read, one, other = tiny.encode(["doors is broken", "门坏了", "了坏门"])
    assert not read[HIDDEN:].any() and one[HIDDEN:].any()
    assert float(one @ other) < 0.95
    assert float(tiny.encode(["汽车 door"])[0] @ tiny.encode(["door"])[0]) < 0.95


def test_no_n_grams_leave_the_model_alone(tmp_path: Path) -> None:
    settings = with_model(tmp_path, write_tiny_model(tmp_path / "model"), ngram_buckets=0)
    encoder = open_text_encoder(settings)
    assert encoder.dim == HIDDEN
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(["门坏了"]), axis=1), 1, atol=1e-5)


def test_an_encoder_is_made_once_for_the_same_files_and_settings(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    first, second = (text_encoder(with_model(tmp_path / name, model)) for name in ("one", "two"))
    assert first.name == second.name
    assert (first / MODEL).read_bytes() == (second / MODEL).read_bytes()
    written = (first / ABOUT).stat().st_mtime_ns
    assert text_encoder(with_model(tmp_path / "one", model)) == first
    assert (first / ABOUT).stat().st_mtime_ns == written
    assert text_encoder(with_model(tmp_path / "one", model, ngram_longest=2)) != first


def test_two_processes_may_make_the_same_encoder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_model(tmp_path, write_tiny_model(tmp_path / "model"))

    def overtaken(*arguments: object) -> None:
        monkeypatch.undo()
        text_encoder(settings)
        make_encoder(*arguments)

    monkeypatch.setattr("offline.text.sentence_model.make_encoder", overtaken)
    folder = text_encoder(settings)
    assert (folder / ABOUT).exists() and [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    folder = text_encoder(with_model(tmp_path, write_tiny_model(tmp_path / "model")))
    with (folder / MODEL).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DataError, match=r"sentence\.onnx"):
        TextEncoder(folder)


def test_no_such_model_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r"requirements-text\.txt"):
        model_folder("no-such-model")


def test_another_pooling_is_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(DataError, match="pooling_mode_cls_token"):
        text_encoder(with_model(tmp_path, model))


class Counted:
    """An encoder that counts the texts it is asked for."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder, self.asked = encoder, 0
        self.sha256, self.dim = encoder.sha256, encoder.dim

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += len(texts)
        return self.encoder.encode(texts)


def test_each_distinct_text_is_encoded_once_over_processes_and_time(tiny: TextEncoder, tmp_path: Path) -> None:
    counted = Counted(tiny)
    first = CachedVectors(counted, tmp_path)  # type: ignore[arg-type]
    texts = ["door", "门坏了", "door", "brakes"]
    made = first.encode(texts)
    np.testing.assert_allclose(made, tiny.encode(texts), atol=1e-5)
    second = CachedVectors(counted, tmp_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(second.encode(texts), made)
    assert counted.asked == 3
    second.encode(["squeal"])
    first.encode(["squeal"])  # written by the other one meanwhile
    assert counted.asked == 4
