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
TRANSFORMS = ("log1p", "clip", "standardize", "bucketize")


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
        cross_only: crosses read its raw value; the network sees only them.
        weights: of a sequence with a vocabulary, the numeric sequence aligned with it whose values weigh its elements.
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
    cross_only: bool = False
    weights: str = ""
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
        if self.vocabulary is not None and self.dtype == "float32":
            raise ValueError("a feature with a vocabulary holds int64, string or id; ids never travel as float32")
        if self.vocabulary is not None and self.embedding == 0 and not self.cross_only:
            raise ValueError("a feature with a vocabulary needs an embedding size")
        if self.vocabulary is None and self.dtype in ("string", "id") and not (self.key or self.cross_only):
            raise ValueError(f"a {self.dtype} feature without a vocabulary cannot enter the network")
        if self.weights and (self.type != "sequence" or self.vocabulary is None):
            raise ValueError("`weights` belongs to a sequence with a vocabulary")
        self._check_transforms()
        return self

    def _check_transforms(self) -> None:
        names = [next(iter(step)) if isinstance(step, dict) else step for step in self.transform]
        unknown = [name for name in names if name not in TRANSFORMS]
        if unknown:
            raise ValueError(f"unknown transform {unknown[0]!r}; there are {', '.join(TRANSFORMS)}")
        for step in self.transform:
            if isinstance(step, str) != (step in ("log1p", "standardize")):
                raise ValueError(
                    f"transform {step!r}: log1p and standardize take no values, clip and bucketize take a list"
                )
            if isinstance(step, dict):
                (name, values), *more = step.items()
                if more or sorted(values) != values or len(values) != (2 if name == "clip" else max(len(values), 1)):
                    raise ValueError(f"transform {name!r}: ascending values are needed (two for clip), got {step}")
        if names and (self.type not in ("numeric", "dense_vector") or self.entity == "cross"):
            raise ValueError("transforms are for numeric and dense_vector inputs; crosses are always standardized")
        if "bucketize" in names and (names[-1] != "bucketize" or self.type != "numeric" or self.embedding == 0):
            raise ValueError("bucketize comes last, on a numeric feature with an embedding size")


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
        vocabularies = {feature.name: feature.vocabulary for feature in self.features}
        for feature in self.features:
            shared = feature.vocabulary.share if feature.vocabulary else ""
            references = [name for name in (shared, feature.weights) if name]
            for reference in [*references, *(feature.cross.inputs if feature.cross else [])]:
                if reference not in names:
                    raise ValueError(f"{feature.name} refers to {reference!r}, which is not declared")
            if feature.cross:
                later = [name for name in feature.cross.inputs if names.index(name) >= names.index(feature.name)]
                if later:
                    raise ValueError(f"cross {feature.name} reads {later[0]!r}, which must be declared above it")
            owner = vocabularies.get(shared)
            if shared and (owner is None or owner.share):
                raise ValueError(f"{feature.name} shares the vocabulary of {shared!r}, which has none of its own")
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

    @cached_property
    def crosses(self) -> list[Feature]:
        """Computed in the graph, in declared order; a cross may read one above it."""
        return self.of("cross")

    def vocabulary_of(self, feature: Feature) -> Feature:
        """The feature whose vocabulary and embedding table this one uses: itself, or the one it shares with."""
        return self[feature.vocabulary.share] if feature.vocabulary and feature.vocabulary.share else feature

    def dtype_of(self, feature: Feature, user_ids: str, item_ids: str) -> Literal["int64", "float32", "string"]:
        """A feature's dtype with `id` resolved to what the log declares for users (`user_ids`) and items."""
        if feature.dtype != "id":
            return feature.dtype
        resolved = user_ids if self.vocabulary_of(feature).entity == "user" else item_ids
        if resolved not in ("int64", "string"):
            raise SpecError(f"feature {feature.name!r}: ids are int64 or string, not {resolved!r}", field=feature.name)
        return "int64" if resolved == "int64" else "string"

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise SpecError(f"scene {self.scene}: no feature {name!r}", field=name)


def spec_file(name_or_path: str | Path) -> Path:
    """The file of a spec: a path to a YAML as it is, else the built-in one of that name."""
    path = Path(name_or_path)
    return path if path.suffix in (".yaml", ".yml") else FOLDER / f"{name_or_path}.yaml"


def load_spec(name_or_path: str | Path) -> FeatureSpec:
    """Reads and validates a feature spec: a name in `feature_specs`, or the path of a YAML file.

    Raises:
        SpecError: no such file, not YAML, or a declaration that contradicts itself; the message names file and feature.
    """
    path = spec_file(name_or_path)
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
