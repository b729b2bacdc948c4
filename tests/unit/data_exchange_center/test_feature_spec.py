"""A feature spec that contradicts itself is refused, and the message leads to the line."""

from pathlib import Path

import pytest
import yaml

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_selection import selected
from data_exchange_center.feature_spec import FOLDER, load_spec

NUMBER = {"name": "age", "entity": "user", "type": "numeric"}


def spec_file(tmp_path: Path, *features: dict[str, object]) -> Path:
    path = tmp_path / "scene.yaml"
    path.write_text(yaml.safe_dump({"scene": "scene", "features": list(features)}))
    return path


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_built_in_specs_are_valid(path: Path) -> None:
    assert load_spec(path.stem).scene == path.stem


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        ({**NUMBER, "lenght": 3}, "feature 'age', lenght"),
        ({**NUMBER, "length": 3}, "feature 'age': .*holds one element"),
        ({**NUMBER, "type": "categorical"}, "feature 'age': .*needs a vocabulary"),
        ({**NUMBER, "entity": "planet"}, "feature 'age', entity"),
        ({**NUMBER, "vocabulary": {"policy": "learned"}}, "has no vocabulary"),
        ({**NUMBER, "entity": "cross", "cross": {"op": "rate", "inputs": ["nothing"]}}, "refers to 'nothing'"),
        ({**NUMBER, "entity": "cross"}, "go together"),
    ],
)
def test_a_contradiction_is_named(feature: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=says):
        load_spec(spec_file(tmp_path, feature))


def test_a_name_declared_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="declared twice: .*age"):
        load_spec(spec_file(tmp_path, NUMBER, NUMBER))


def test_an_unknown_spec_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="movielens"):
        load_spec("moovielens")


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scene.yaml"
    path.write_text("features: [")
    with pytest.raises(SpecError, match="not valid YAML"):
        load_spec(path)


ID = {"name": "c1", "entity": "candidate", "type": "categorical", "dtype": "int64", "vocabulary": {}, "embedding": 2}
DERIVED = {"name": "made", "entity": "candidate", "type": "numeric"}
BINS = {**NUMBER, "embedding": 2, "transform": [{"quantiles": 4}]}


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ([{**BINS, "transform": [{"quantiles": 1}]}], "feature 'age', transform|number of bins"),
        ([{**BINS, "transform": [{"quantiles": [1, 2]}]}], "number of bins"),
        ([{**BINS, "transform": ["quantiles"]}], "takes? no values"),
        ([{**BINS, "transform": [{"quantiles": 4}, "log1p"]}], "come last"),
        ([{**BINS, "default": 0}], "missing value has a bin of its own"),
        ([{**BINS, "embedding": 0}], "embedding size"),
        ([{**NUMBER, "transform": [{"clip": [2, 1]}]}], "ascending"),
        ([{**NUMBER, "transform": [{"clip": [0, float("nan")]}]}], "ascending|finite"),
        ([{**NUMBER, "transform": ["square"]}], "unknown transform 'square'"),
        ([{**NUMBER, "hash": True}], "hash"),
        ([ID, {**DERIVED, "derive": {"op": "mean", "inputs": ["c1"]}}], "unknown operation 'mean'"),
        ([ID, {**DERIVED, "derive": {"op": "count", "inputs": ["c1", "c1"]}}], r"count takes 1 input\(s\), not 2"),
        ([ID, {**DERIVED, "derive": {"op": "count", "inputs": ["c2"]}}], "'c2', which must be declared above"),
        ([ID, {**DERIVED, "derive": {"op": "value", "inputs": ["c1"]}}], "value reads an input number"),
        ([ID, {**DERIVED, "entity": "user", "derive": {"op": "count", "inputs": ["c1"]}}], "has entity user"),
        ([ID, {**DERIVED, "derive": {"op": "target", "inputs": ["c1"], "parameters": {"folds": 3}}}], "no parameter"),
        ([ID, {**DERIVED, "derive": {"op": "target", "inputs": ["c1"], "parameters": {"strength": -1}}}], "at least 0"),
        ([ID, {**ID, "name": "x", "derive": {"op": "count", "inputs": ["c1"]}}], "makes a numeric feature"),
    ],
)
def test_an_operation_that_cannot_be_is_named(features: list[dict[str, object]], says: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=says) as error:
        load_spec(spec_file(tmp_path, *features))
    assert str(features[-1]["name"]) in error.value.message


def test_a_selection_keeps_what_it_needs_hidden_and_drops_the_rest() -> None:
    spec = load_spec("criteo")
    chosen = selected(spec, ["i1_bins", "c?_target", "-c9_target"])
    assert [feature.name for feature in chosen.encoded] == ["i1_bins", *(f"c{place}_target" for place in range(1, 9))]
    assert [feature.name for feature in chosen.inputs] == ["i1", *(f"c{place}" for place in range(1, 9))]
    assert all(feature.cross_only for feature in chosen.inputs)
    assert selected(spec, []) == spec
    without = selected(spec, ["-*_count"])
    assert len(without.features) == len(spec.features) - 26
    assert {feature.embedding for feature in selected(spec, [], embedding=5).encoded} == {0, 5}


def test_a_selection_sets_frequencies_and_bins_of_those_that_have_some() -> None:
    spec = load_spec("criteo")
    chosen = selected(spec, [], min_frequency=50, quantiles=10)
    assert {feature.vocabulary.min_frequency for feature in chosen.features if feature.vocabulary} == {50}
    bins = [feature.name for feature in chosen.features if feature.transform == [{"quantiles": 10}]]
    assert bins == [f"i{place}_bins" for place in range(1, 14)]
    numbers = ["i1", "c1_count", "c1_target"]
    assert [chosen[name] for name in numbers] == [spec[name] for name in numbers]
