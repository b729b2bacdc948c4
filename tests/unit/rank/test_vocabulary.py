"""Vocabularies: which tokens they hold, and that they come back from disk unchanged or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_spec import VocabularyPolicy
from data_exchange_center.vocabulary import FIRST, UNKNOWN, Vocabulary, fit_vocabulary


def test_tokens_are_ordered_by_frequency_then_token_and_rare_ones_are_unknown() -> None:
    values = pa.array(["b", "a", "c", "b", "a", "", None, "d", "d", "d"])
    vocabulary = fit_vocabulary("word", VocabularyPolicy(min_frequency=2), values)
    assert vocabulary.tokens == ("d", "a", "b")
    assert [vocabulary.encode(token) for token in ("d", "a", "b", "c", "")] == [
        FIRST,
        FIRST + 1,
        FIRST + 2,
        UNKNOWN,
        UNKNOWN,
    ]
    assert vocabulary.size == 5


def test_lists_count_each_of_their_elements() -> None:
    assert fit_vocabulary("words", VocabularyPolicy(), pa.array([["x"], None, ["y", "x"]])).tokens == ("x", "y")


def test_integers_stay_integers_on_disk(tmp_path: Path) -> None:
    vocabulary = fit_vocabulary("id", VocabularyPolicy(), pa.array([5, 2**60, 5]))
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path, "id") == vocabulary


def test_a_growing_vocabulary_keeps_known_ids_and_says_what_found_no_room() -> None:
    policy = VocabularyPolicy(policy="growing", capacity=3)
    vocabulary = fit_vocabulary("brand", policy, pa.array(["a", "a", "b"]))
    growth = vocabulary.grown(["b", "c", "c", "d"])
    assert growth.vocabulary.tokens == ("a", "b", "c") and growth.vocabulary.size == vocabulary.size == 5
    assert growth.added == {"c": FIRST + 2} and growth.refused == ("d",) and growth.reused == ()


def test_a_later_fit_adds_and_never_renumbers() -> None:
    policy = VocabularyPolicy(policy="growing", capacity=10)
    first = fit_vocabulary("brand", policy, pa.array(["b", "b", "a"]))
    later = fit_vocabulary("brand", policy, pa.array(["z", "z", "z", "a"]), known=first)
    assert later.tokens == ("b", "a", "z")


def test_evicted_ids_are_recorded_and_given_out_last(tmp_path: Path) -> None:
    vocabulary = Vocabulary("brand", ("a", "b", "c"), 4).evict(["b"], "not seen for 90 days", "2026-01-01")
    assert vocabulary.encode("b") == UNKNOWN and vocabulary.encode("c") == FIRST + 2
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path, "brand") == vocabulary
    growth = vocabulary.grown(["d", "e", "f"])
    assert growth.vocabulary.tokens == ("a", "e", "c", "d")
    assert growth.reused == (FIRST + 1,) and growth.refused == ("f",)
    with pytest.raises(SpecError, match="holds no 'x'"):
        vocabulary.evict(["x"], "rule", "2026-01-01")


@pytest.mark.parametrize("policy", [{"policy": "fixed"}, {"policy": "hashed"}, {"policy": "growing"}])
def test_a_policy_without_what_it_needs_names_the_feature(policy: dict[str, str]) -> None:
    with pytest.raises(SpecError) as error:
        fit_vocabulary("broken", VocabularyPolicy.model_validate(policy), pa.array(["a"]))
    assert error.value.field == "broken"


@pytest.mark.parametrize(
    "content",
    [
        {"feature": "f", "capacity": 2, "tokens": ["a", 1]},
        {"feature": "f", "capacity": 2, "tokens": ["a", "a"]},
        {"feature": "f", "capacity": 1, "tokens": ["a", "b"]},
        {"feature": "f", "tokens": ["a"]},
        {"feature": "f", "capacity": 2, "tokens": ["a", None]},
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: dict[str, object]) -> None:
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"f\.json"):
        Vocabulary.load(tmp_path, "f")


def test_a_missing_value_can_be_a_token_of_its_own_however_rare() -> None:
    values = pa.array([5, 5, None, 7, 5, 7])
    policy = VocabularyPolicy(min_frequency=2, missing=True)
    assert fit_vocabulary("number", policy, values, missing=-1).tokens == (-1, 5, 7)
    assert fit_vocabulary("number", policy, pa.array([5, 5, -1]), missing=-1).tokens == (-1, 5)
