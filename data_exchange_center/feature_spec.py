"""A scene's feature declaration: each feature once, in YAML; everything else is derived from it.

From the spec come the encoder (training and ONNX graph alike), the Feast views and services, the graph's inputs and the
online request assembly. Entities and the leading dimension of the graph's input:

    user       one row a request              stored in the feature store      [1, ...]
    context    one value a request            made by the server (`now`)       [1, ...]
    item       one row a candidate            stored in the feature store      [N, ...]
    candidate  one value a candidate          made by the server (recall scores) [N, ...]
    cross      computed in the graph from the others; not an input
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_exchange_center.errors import SpecError

FOLDER = Path(__file__).resolve().parent / "feature_specs"

Entity = Literal["user", "item", "context", "candidate", "cross"]
Kind = Literal["categorical", "multi_categorical", "numeric", "sequence", "dense_vector"]
Scalar = int | float | str


class Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VocabularyPolicy(Declared):
    """How raw values become ids.

    Attributes:
        policy: `fixed` tokens; `learned` from the fit's rows; `growing` with a capacity; `hashed` into buckets.
        tokens: of a fixed vocabulary.
        min_frequency: tokens seen less often in the fit's rows fall to UNK.
        capacity: most tokens a growing vocabulary can hold, UNK and padding not counted.
        buckets: of a hashed one.
        share: name of the feature whose vocabulary and embedding table this one uses.
    """

    policy: Literal["fixed", "learned", "growing", "hashed"] = "learned"
    tokens: list[int | str] = []
    min_frequency: int = Field(1, ge=1)
    capacity: int = Field(0, ge=0)
    buckets: int = Field(0, ge=0)
    share: str = ""


class Cross(Declared):
    """A value computed in the graph from user-side and item-side inputs; operations are listed in the models' crosses."""

    op: str
    inputs: list[str] = Field(min_length=1)
    parameters: dict[str, Scalar | list[Scalar]] = {}


class Feature(Declared):
    """One feature, declared once.

    Attributes:
        name: also the column, the Feast field and the graph input.
        dtype: of one element; `id` is int64 or string, as the log declares its ids.
        length: elements per value of a multi-categorical, sequence or dense-vector feature (padded or cut at the end).
        transform: applied in order to numeric values, e.g. ["log1p", "standardize"], {"clip": [0, 1]}, {"bucketize": [...]}.
        embedding: size of the embedding; 0: the value goes in as it is.
        default: stands for a missing value.
        key: the value is the entity's id: known from the request, not stored.
        heads: which heads of the network see it.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    entity: Entity
    type: Kind
    dtype: Literal["int64", "float32", "string", "id"] = "float32"
    length: int = Field(1, ge=1)
    vocabulary: VocabularyPolicy | None = None
    transform: list[str | dict[str, list[float]]] = []
    embedding: int = Field(0, ge=0)
    default: Scalar | None = None
    key: bool = False
    cross: Cross | None = None
    heads: list[Literal["like", "choose"]] = ["like", "choose"]
    description: str = ""

    @property
    def is_list(self) -> bool:
        """Whether a value is an array of `length` elements."""
        return self.type in ("multi_categorical", "sequence", "dense_vector")

    @property
    def missing(self) -> Scalar:
        """What stands for a missing element: the declared default, else "" for strings, 0 for numbers."""
        if self.default is not None:
            return self.default
        return "" if self.dtype == "string" else 0

    @model_validator(mode="after")
    def _consistent(self) -> Feature:
        if (self.entity == "cross") != (self.cross is not None):
            raise ValueError("entity `cross` and a `cross:` entry go together")
        if self.type in ("categorical", "multi_categorical") and self.vocabulary is None:
            raise ValueError(f"a {self.type} feature needs a vocabulary")
        if self.type in ("numeric", "dense_vector") and self.vocabulary is not None:
            raise ValueError(f"a {self.type} feature has no vocabulary; bucketize is a transform")
        if self.length > 1 and not self.is_list:
            raise ValueError(f"a {self.type} feature holds one element; length {self.length} is for lists")
        return self


class FeatureSpec(Declared):
    """All features of a scene, in a fixed order."""

    scene: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    features: list[Feature] = Field(min_length=1)

    @model_validator(mode="after")
    def _references_hold(self) -> FeatureSpec:
        names = [feature.name for feature in self.features]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"declared twice: {sorted(repeated)}")
        for feature in self.features:
            shared = feature.vocabulary.share if feature.vocabulary else ""
            for reference in [*([shared] if shared else []), *(feature.cross.inputs if feature.cross else [])]:
                if reference not in names:
                    raise ValueError(f"{feature.name} refers to {reference!r}, which is not declared")
        return self

    def of(self, *entities: Entity) -> list[Feature]:
        """Features of these entities, in declared order."""
        return [feature for feature in self.features if feature.entity in entities]

    @cached_property
    def user_features(self) -> list[Feature]:
        """What the feature store keeps per user (keys are not stored)."""
        return [feature for feature in self.of("user") if not feature.key]

    @cached_property
    def item_features(self) -> list[Feature]:
        """What the feature store keeps per item (keys are not stored)."""
        return [feature for feature in self.of("item") if not feature.key]

    @cached_property
    def inputs(self) -> list[Feature]:
        """The exported graph's inputs."""
        return [feature for feature in self.features if feature.entity != "cross"]

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise SpecError(f"scene {self.scene}: no feature {name!r}", field=name)


def load_spec(name_or_path: str | Path) -> FeatureSpec:
    """Reads and validates a feature spec: a name in `feature_specs`, or the path of a YAML file.

    Raises:
        SpecError: no such file, not YAML, or a declaration that contradicts itself; the message names file and feature.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name_or_path}.yaml"
    if not path.exists():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        raise SpecError(f"{path}: no such feature spec; built-in ones are {known}")
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return FeatureSpec.model_validate(tree)
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = _place(tree, first["loc"])
        raise SpecError(f"{path}: {place}: {first['msg']}", field=place) from error


def _place(tree: Any, location: tuple[int | str, ...]) -> str:
    """`features.3.length` as `feature 'genres', length`, so that one finds the line."""
    if len(location) >= 2 and location[0] == "features" and isinstance(location[1], int):
        entry = tree["features"][location[1]]
        name = entry.get("name", f"number {location[1]}") if isinstance(entry, dict) else f"number {location[1]}"
        return ", ".join([f"feature {name!r}", *(str(part) for part in location[2:])])
    return ".".join(str(part) for part in location) or "the whole file"
