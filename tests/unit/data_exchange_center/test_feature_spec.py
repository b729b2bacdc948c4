"""A feature spec that contradicts itself is refused, and the message leads to the line."""

from pathlib import Path

import pytest
import yaml

from data_exchange_center.errors import SpecError
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
