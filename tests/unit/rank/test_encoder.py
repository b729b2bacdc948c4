"""The encoder's graph against a plain Python reference, on open inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_exchange_center.derived_values import Fitted, Statistics
from data_exchange_center.encoder import LIMIT, build_encoder, embedding_rows
from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.graph_nodes import HUGE
from data_exchange_center.vocabulary import PADDING, UNKNOWN, Vocabulary


def spec_of(*features: dict[str, Any]) -> FeatureSpec:
    return FeatureSpec.model_validate({"scene": "tiny", "features": list(features)})


def session_of(
    spec: FeatureSpec, vocabularies: dict[str, Vocabulary], statistics: dict[str, Statistics]
) -> ort.InferenceSession:
    model = build_encoder(spec, vocabularies, Fitted(statistics), ("int64", "string"))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, **columns: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, columns), strict=True))


LEARNED = {"policy": "learned"}
WORDS = Vocabulary("word", ("b", "a", "ü", " "), 4)
NUMBERS = Vocabulary("number", (7, -3, 2**40), 3)
IDS = session_of(
    spec_of(
        {"name": "word", "entity": "item", "type": "categorical", "dtype": "string", "vocabulary": LEARNED, "embedding": 2},
        {"name": "number", "entity": "user", "type": "categorical", "dtype": "int64", "vocabulary": LEARNED, "embedding": 2},
        {
            "name": "words", "entity": "item", "type": "multi_categorical", "dtype": "string", "length": 3,
            "vocabulary": {"share": "word"}, "embedding": 2,
        },
        {
            "name": "numbers", "entity": "user", "type": "sequence", "dtype": "int64", "length": 3,
            "vocabulary": {"share": "number"}, "embedding": 2,
        },
    ),
    {"word": WORDS, "number": NUMBERS},
    {},
)  # fmt: skip
WORD = st.one_of(
    st.sampled_from(["", *map(str, WORDS.tokens)]), st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=4)
)
NUMBER = st.one_of(st.sampled_from([0, *map(int, NUMBERS.tokens)]), st.integers(-(2**63), 2**63 - 1))


@given(words=st.lists(WORD, min_size=3, max_size=3), numbers=st.lists(NUMBER, min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_tokens_become_their_ids_unseen_ones_unknown_and_missing_list_elements_padding(
    words: list[str], numbers: list[int]
) -> None:
    made = run(
        IDS,
        word=np.array(words, object),
        number=np.array(numbers, np.int64),
        words=np.array([words], object),
        numbers=np.array([numbers], np.int64),
    )
    assert made["encoded.word"].tolist() == [WORDS.encode(word) for word in words]
    assert made["encoded.number"].tolist() == [NUMBERS.encode(number) for number in numbers]
    assert made["encoded.words"].tolist() == [[WORDS.encode(word) if word else PADDING for word in words]]
    assert made["encoded.numbers"].tolist() == [[NUMBERS.encode(number) if number else PADDING for number in numbers]]


EDGES = [0.0, 1.5, 10.0]
SCALED = session_of(
    spec_of(
        {"name": "plain", "entity": "user", "type": "numeric", "default": 4.0},
        {"name": "logged", "entity": "user", "type": "numeric", "transform": ["log1p"]},
        {"name": "scaled", "entity": "user", "type": "numeric", "transform": [{"clip": [-50, 50]}, "standardize"]},
        {"name": "bucket", "entity": "user", "type": "numeric", "transform": [{"bucketize": EDGES}], "embedding": 2},
        {
            "name": "vector",
            "entity": "user",
            "type": "dense_vector",
            "length": 2,
            "transform": ["log1p", "standardize"],
        },
    ),
    {},
    {"scaled": Statistics((2.0,), (4.0,)), "vector": Statistics((0.5, -0.5), (1.0, 2.0))},
)


def present(value: float, default: float = 0.0) -> float:
    return default if math.isnan(value) else min(max(value, -HUGE), HUGE)


def log1p(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value)


@given(values=hnp.arrays(np.float32, 4, elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
@settings(max_examples=120, deadline=None)
def test_numbers_are_filled_bounded_and_scaled_as_declared(values: np.ndarray) -> None:
    pairs = np.stack([values, values[::-1]], 1)
    made = run(SCALED, plain=values, logged=values, scaled=values, bucket=values, vector=pairs)
    floats = [float(value) for value in values]
    assert made["encoded.plain"] == pytest.approx([present(v, 4.0) for v in floats], rel=1e-6)
    assert made["encoded.logged"] == pytest.approx([log1p(present(v)) for v in floats], rel=1e-5, abs=1e-6)
    scaled = [(min(max(present(v), -50), 50) - 2) / 4 for v in floats]
    assert made["encoded.scaled"] == pytest.approx([min(max(v, -LIMIT), LIMIT) for v in scaled], rel=1e-5, abs=1e-6)
    assert made["encoded.bucket"].tolist() == [sum(present(v) >= edge for edge in EDGES) for v in floats]
    for column, (mean, deviation) in enumerate(((0.5, 1.0), (-0.5, 2.0))):
        wanted = [(log1p(present(float(v))) - mean) / deviation for v in pairs[:, column]]
        assert made["encoded.vector"][:, column] == pytest.approx(
            [min(max(v, -LIMIT), LIMIT) for v in wanted], rel=1e-5, abs=1e-5
        )


def test_what_crosses_read_is_passed_on_raw_and_timestamps_stay_exact() -> None:
    spec = spec_of(
        {"name": "now", "entity": "context", "type": "numeric", "dtype": "int64", "cross_only": True},
        {"name": "then", "entity": "user", "type": "numeric", "dtype": "int64", "cross_only": True},
        {"name": "count", "entity": "user", "type": "numeric", "transform": ["log1p"]},
        {"name": "since", "entity": "cross", "type": "numeric", "cross": {"op": "elapsed", "inputs": ["now", "then"]}},
        {"name": "gap", "entity": "cross", "type": "numeric", "cross": {"op": "log_gap", "inputs": ["count", "count"]}},
    )
    moment = np.array([1_700_000_001], np.int64)
    made = run(session_of(spec, {}, {}), now=moment, then=moment - 1, count=np.array([3.0], np.float32))
    assert made["raw.now"].dtype == np.int64 and made["raw.now"][0] - made["raw.then"][0] == 1
    assert made["raw.count"].tolist() == [3.0]
    assert set(made) == {"raw.now", "raw.then", "raw.count", "encoded.count"}


def test_growing_ids_outside_of_the_capacity_are_unknown() -> None:
    spec = spec_of(
        {
            "name": "brand", "entity": "item", "type": "categorical", "dtype": "int64", "embedding": 2,
            "vocabulary": {"policy": "growing", "capacity": 3},
        }
    )  # fmt: skip
    vocabulary = Vocabulary("brand", (), 3)
    made = run(session_of(spec, {"brand": vocabulary}, {}), brand=np.array([0, 2, 4, 5, -1, 2**62], np.int64))
    assert made["encoded.brand"].tolist() == [0, 2, 4, UNKNOWN, UNKNOWN, UNKNOWN]
    assert embedding_rows(spec["brand"], spec, {"brand": vocabulary}) == 5


@pytest.mark.parametrize(
    ("feature", "vocabularies", "statistics"),
    [
        ({"type": "categorical", "dtype": "int64", "vocabulary": LEARNED, "embedding": 2}, {}, {}),
        ({"type": "categorical", "dtype": "int64", "vocabulary": LEARNED, "embedding": 2}, {"wrong": WORDS}, {}),
        ({"type": "numeric", "transform": ["standardize"]}, {}, {}),
        (
            {"type": "dense_vector", "length": 2, "transform": ["standardize"]},
            {},
            {"wrong": Statistics((0.0,), (1.0,))},
        ),
        ({"type": "numeric", "cross_only": True}, {}, {}),
    ],
)
def test_what_cannot_be_encoded_is_named(
    feature: dict[str, Any], vocabularies: dict[str, Vocabulary], statistics: dict[str, Statistics]
) -> None:
    with pytest.raises(SpecError) as error:
        session_of(spec_of({"name": "wrong", "entity": "user", **feature}), vocabularies, statistics)
    assert error.value.field == "wrong"
