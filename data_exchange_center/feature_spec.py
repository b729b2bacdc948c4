"""A scene's feature declaration: each feature once, in YAML; everything else is derived from it.

From the spec come the encoder (training and ONNX graph alike), the Feast views and services, the graph's inputs and the
online request assembly. Entities and the leading dimension of the graph's input:

    user       one row a request              stored in the feature store      [1, ...]
    context    one value a request            made by the server (`now`)       [1, ...]
    item       one row a candidate            stored in the feature store      [N, ...]
    candidate  one value a candidate          made by the server (recall scores) [N, ...]
    cross      computed in the graph from the others; not an input

A feature with `derive:` is computed in the encoder from the raw values of others and is not an input either; it has the entity
of what it reads. Transforms and derivations are listed in feature_operations.py.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_operations import (
    BUCKETS,
    DERIVATIONS,
    Scalar,
    Step,
    check_derivation,
    check_transforms,
    transform_name,
)

FOLDER = Path(__file__).resolve().parent / "feature_specs"

Entity = Literal["user", "item", "context", "candidate", "cross"]
Kind = Literal["categorical", "multi_categorical", "numeric", "sequence", "dense_vector"]


class Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VocabularyPolicy(Declared):
    """How raw values become ids.

    Attributes:
        policy: `fixed` tokens; `learned` from the fit's rows; `growing` with a capacity; `hashed` into buckets. `raw` is never
            declared: while a run's embeddings grow (growing_features.py), ids go through the encoder as they are.
        tokens: of a fixed vocabulary.
        min_frequency: tokens seen less often in the fit's rows fall to UNK.
        capacity: most tokens a growing vocabulary can hold, UNK and padding not counted.
        buckets: of a hashed one.
        share: name of the feature whose vocabulary and embedding table this one uses.
        missing: the missing value is a token of its own, the first one, however rare (learned and growing vocabularies).
        token: what a log holds of a growing one's tokens; the graph takes their ids (ready_rows.py).
    """

    policy: Literal["fixed", "learned", "growing", "hashed", "raw"] = "learned"
    tokens: list[int | str] = []
    min_frequency: int = Field(1, ge=1)
    capacity: int = Field(0, ge=0)
    buckets: int = Field(0, ge=0)
    share: str = ""
    missing: bool = False
    token: Literal["int64", "string"] = "int64"  # noqa: S105


class Derive(Declared):
    """A feature computed in the encoder from the raw values of others; operations are listed in feature_operations.py."""

    op: str
    inputs: list[str] = Field(min_length=1)
    parameters: dict[str, Scalar] = {}

    @model_validator(mode="after")
    def _known(self) -> Derive:
        check_derivation(self.op, self.inputs, self.parameters)
        return self

    def parameter(self, name: str) -> float:
        """A parameter as declared, else its default."""
        return float(self.parameters.get(name, DERIVATIONS[self.op].parameters[name][0]))


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
        length: elements per value of a multi-categorical, sequence or dense-vector feature (padded at the end, or truncated).
        keep: which elements of a longer list stay: the first or the last ones.
        hash: the column may hold text: each text becomes an int64 by rows/categories.py.
        transform: applied in order to numeric values, e.g. ["log1p", "standardize"], {"clip": [0, 1]}, {"quantiles": 40}.
        embedding: size of the embedding; 0: the value goes in as it is.
        combiner: what the embeddings of a multi-categorical feature's elements become, their `mean` or their `sum`.
        default: stands for a missing value: null, and NaN of a number. A missing number of a candidate travels as NaN into the
            graph, which replaces it, so that each feature derived from it can have a default of its own.
        key: the value is the entity's id: known from the request, not stored.
        heads: which heads of the network see it.
        derive: computed in the encoder from other features; not an input of the graph.
        cross_only: crosses and derived features read its raw value; the network sees only them.
        weights: of a sequence with a vocabulary, the numeric sequence aligned with it whose values weigh its elements.
        text: of a dense vector, the log's column of free text that the scene's text encoder makes it of (ready_rows.py).
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    entity: Entity
    type: Kind
    dtype: Literal["int64", "float32", "string", "id"] = "float32"
    length: int = Field(1, ge=1)
    keep: Literal["first", "last"] = "first"
    hash: bool = False
    vocabulary: VocabularyPolicy | None = None
    transform: list[Step] = []
    embedding: int = Field(0, ge=0)
    combiner: Literal["mean", "sum"] = "mean"
    default: Scalar | None = None
    key: bool = False
    cross: Cross | None = None
    derive: Derive | None = None
    heads: list[Literal["like", "choose"]] = ["like", "choose"]
    cross_only: bool = False
    weights: str = ""
    text: str = ""
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

    @property
    def bucketized(self) -> bool:
        """Whether its transforms end in an id: bucketize or quantiles."""
        return bool(self.transform) and transform_name(self.transform[-1]) in BUCKETS

    @property
    def bins(self) -> int:
        """Most bins of a `quantiles` feature; 0 for others."""
        last = self.transform[-1] if self.transform else ""
        return int(last["quantiles"]) if isinstance(last, dict) and "quantiles" in last else 0  # type: ignore[arg-type]

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
        if self.text and (self.type != "dense_vector" or self.entity != "candidate"):
            raise ValueError("`text` belongs to a dense_vector of a candidate")
        if self.combiner != "mean" and self.type != "multi_categorical":
            raise ValueError("`combiner` belongs to a multi_categorical feature")
        if self.vocabulary is not None and self.vocabulary.missing and self.is_list:
            raise ValueError("a missing element of a list is padding; `missing` is for single values")
        if self.hash and (self.dtype != "int64" or self.derive is not None):
            raise ValueError(f"`hash` makes int64 of an input's text; this feature is {self.dtype}")
        self._check_transforms()
        self._check_derived()
        return self

    def _check_transforms(self) -> None:
        check_transforms(self.transform)
        if self.transform and (self.type not in ("numeric", "dense_vector") or self.entity == "cross"):
            raise ValueError("transforms are for numeric and dense_vector inputs; crosses are always standardized")
        if self.bucketized and (self.type != "numeric" or self.embedding == 0):
            raise ValueError("bucketize and quantiles are for a numeric feature with an embedding size")
        if self.bins and (self.default is not None or self.dtype != "float32"):
            raise ValueError("quantiles are for float32 without a default: a missing value has a bin of its own")

    def _check_derived(self) -> None:
        if self.derive is None:
            return
        if self.cross is not None or self.key:
            raise ValueError("a derived feature is neither a cross of the network nor a key")
        made = DERIVATIONS[self.derive.op].makes
        wanted = ("categorical", "int64") if made == "id" else ("numeric", "float32")
        if (self.type, self.dtype) != wanted:
            raise ValueError(f"derive {self.derive.op} makes a {wanted[0]} feature of dtype {wanted[1]}")


class FeatureSpec(Declared):
    """All features of a scene, in a fixed order.

    Attributes:
        folds: parts into which rows are split for out-of-fold target encoding.
    """

    scene: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    folds: int = Field(5, ge=2, le=64)
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
            if feature.derive:
                self._check_derived(feature, names)
            owner = vocabularies.get(shared)
            if shared and (owner is None or owner.share):
                raise ValueError(f"{feature.name} shares the vocabulary of {shared!r}, which has none of its own")
        return self

    def _check_derived(self, feature: Feature, names: list[str]) -> None:
        derive = feature.derive
        assert derive is not None  # noqa: S101  # for the type checker
        for name in derive.inputs:
            if name not in names[: names.index(feature.name)]:
                raise ValueError(f"{feature.name} is derived from {name!r}, which must be declared above it")
            source = self.features[names.index(name)]
            is_id = source.dtype != "float32" and not source.is_list
            if derive.op == "value":
                holds, wanted = source.type == "numeric" and source.derive is None, "an input number"
            elif derive.op == "cross":
                holds, wanted = is_id and source.dtype == "int64", "a single int64 id"
            else:
                holds, wanted = is_id, "a single id"
            if not holds or source.cross is not None:
                raise ValueError(f"{feature.name}: derive {derive.op} reads {wanted}, and {name!r} is none")
            if (source.entity in ("user", "context")) != (feature.entity in ("user", "context")):
                raise ValueError(f"{feature.name} has entity {feature.entity}, but reads {name!r} of {source.entity}")

    def of(self, *entities: Entity) -> list[Feature]:
        """Features of these entities, in declared order."""
        return [feature for feature in self.features if feature.entity in entities]

    @cached_property
    def user_features(self) -> list[Feature]:
        """What the feature store keeps per user (keys are not stored)."""
        return [feature for feature in self.of("user") if not (feature.key or feature.derive)]

    @cached_property
    def item_features(self) -> list[Feature]:
        """What the feature store keeps per item (keys are not stored)."""
        return [feature for feature in self.of("item") if not (feature.key or feature.derive)]

    @cached_property
    def inputs(self) -> list[Feature]:
        """The exported graph's inputs."""
        return [feature for feature in self.features if feature.entity != "cross" and feature.derive is None]

    @cached_property
    def derived(self) -> list[Feature]:
        """Computed in the encoder, in declared order; one may read another above it."""
        return [feature for feature in self.features if feature.derive is not None]

    @cached_property
    def encoded(self) -> list[Feature]:
        """What the network sees encoded, inputs and derived features in declared order."""
        return [feature for feature in self.features if feature.entity != "cross" and not feature.cross_only]

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

    def sources(self, name: str) -> list[Feature]:
        """The inputs of the graph that a feature is computed from: itself when it is one."""
        feature = self[name]
        if feature.derive is None:
            return [feature]
        found = {source.name: source for below in feature.derive.inputs for source in self.sources(below)}
        return list(found.values())

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
        spec = FeatureSpec.model_validate(tree)
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = _place(tree, first["loc"])
        raise SpecError(f"{path}: {place}: {first['msg']}", field=place) from error
    for feature in spec.features:
        if feature.vocabulary and feature.vocabulary.policy == "raw":
            raise SpecError(
                f"{path}: feature {feature.name!r}: policy raw is not declared; embeddings.grow of a run's settings makes ids grow",
                field=feature.name,
            )
    return spec


def _place(tree: Any, location: tuple[int | str, ...]) -> str:
    """`features.3.length` as `feature 'genres', length`, so that one finds the line."""
    if len(location) >= 2 and location[0] == "features" and isinstance(location[1], int):
        entry = tree["features"][location[1]]
        name = entry.get("name", f"number {location[1]}") if isinstance(entry, dict) else f"number {location[1]}"
        return ", ".join([f"feature {name!r}", *(str(part) for part in location[2:])])
    return ".".join(str(part) for part in location) or "the whole file"
