"""A small scene with every kind of input, and random values for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from data_exchange_center.derived_values import Fitted, Statistics
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.vocabulary import Vocabulary
from offline.models.ranker import NetworkConfig, Ranker, config_for
from offline.rank.feature_encoding import FittedEncoder

GENRES = ("Comedy", "Drama", "War")


SPEC = """
scene: tiny
features:
  - {name: user_id, entity: user, type: categorical, dtype: id, key: true, vocabulary: &v {policy: learned}, embedding: 6}
  - {name: item_id, entity: item, type: categorical, dtype: id, key: true, vocabulary: *v, embedding: 4}
  - {name: genres, entity: item, type: multi_categorical, dtype: string, length: 3, vocabulary: *v, embedding: 3}
  - {name: history, entity: user, type: sequence, dtype: id, length: 4, vocabulary: {share: item_id}, embedding: 4,
     weights: history_labels}
  - {name: history_labels, entity: user, type: sequence, length: 4, cross_only: true}
  - {name: age, entity: user, type: numeric, transform: [{bucketize: [18, 40]}], embedding: 2}
  - {name: events, entity: user, type: numeric, transform: [log1p, standardize]}
  - {name: positives, entity: user, type: numeric, cross_only: true}
  - {name: last_timestamp, entity: user, type: numeric, dtype: int64, cross_only: true}
  - {name: taste, entity: user, type: dense_vector, length: 2, cross_only: true}
  - {name: taste_events, entity: user, type: dense_vector, length: 2, cross_only: true}
  - {name: text, entity: item, type: dense_vector, length: 2, transform: [standardize]}
  - {name: places, entity: item, type: dense_vector, length: 2, cross_only: true}
  - {name: popularity, entity: item, type: numeric, transform: [{clip: [0, 9]}]}
  - {name: now, entity: context, type: numeric, dtype: int64, cross_only: true}
  - {name: recall, entity: candidate, type: numeric, heads: [choose]}
  - {name: rate, entity: cross, type: numeric,
     cross: {op: rate, inputs: [positives, popularity], parameters: {strength: 2}}}
  - {name: since, entity: cross, type: numeric, cross: {op: elapsed, inputs: [now, last_timestamp]}}
  - {name: taste_rate, entity: cross, type: numeric, cross: {op: axis_rate, inputs: [places, taste, taste_events]}}
"""
TWO_SIDED = ("user_id", "item_id", "history", "history_labels", "events", "text", "popularity")


def tiny_spec() -> FeatureSpec:
    """Two ids of unequal embedding size, a list, a weighted sequence, numbers, dense vectors, crosses of both kinds."""
    return FeatureSpec.model_validate(yaml.safe_load(SPEC))


def tiny_encoder(ids: str = "int64") -> FittedEncoder:
    """Vocabularies of 5 users and 7 items (ids 1.. or "u1", "i1"..)."""
    return _encoder(tiny_spec(), ids)


def two_sided_encoder() -> FittedEncoder:
    """The part of it that gives every block an architecture reads a width on both sides, where there are both; no crosses."""
    spec = tiny_spec()
    return _encoder(FeatureSpec(scene="two_sided", features=[spec[name] for name in TWO_SIDED]), "int64")


def _encoder(spec: FeatureSpec, ids: str) -> FittedEncoder:
    users = [number if ids == "int64" else f"u{number}" for number in range(1, 6)]
    items = [number if ids == "int64" else f"i{number}" for number in range(1, 8)]
    vocabularies = {
        "user_id": Vocabulary("user_id", tuple(users), 5),
        "item_id": Vocabulary("item_id", tuple(items), 7),
        "genres": Vocabulary("genres", GENRES, 3),
    }
    statistics = {"events": Statistics((1.5,), (0.5,)), "text": Statistics((0.1, -0.2), (1.0, 2.0))}
    used = {feature.name for feature in spec.features}
    return FittedEncoder(
        spec,
        {name: one for name, one in vocabularies.items() if name in used},
        Fitted({name: one for name, one in statistics.items() if name in used}),
        (ids, ids),
    )


CLICKS = """
scene: clicks
features:
  - {name: c1, entity: candidate, type: categorical, dtype: int64, vocabulary: {policy: learned}, embedding: 4}
  - {name: c2, entity: candidate, type: categorical, dtype: int64, vocabulary: {policy: learned}, embedding: 4}
  - {name: i1, entity: candidate, type: numeric, transform: [{bucketize: [1, 5, 9]}], embedding: 4}
"""
CLICK_NUMBER = "  - {name: i2, entity: candidate, type: numeric, transform: [log1p, standardize]}"


def clicks_encoder(numbers: bool) -> FittedEncoder:
    """A scene of clicks: nothing on the user's side; with one number, or with ids alone."""
    spec = FeatureSpec.model_validate(yaml.safe_load(CLICKS + CLICK_NUMBER * numbers))
    vocabularies = {name: Vocabulary(name, (10, 20, 30), 3) for name in ("c1", "c2")}
    return FittedEncoder(
        spec, vocabularies, Fitted({"i2": Statistics((1.5,), (0.5,))} if numbers else {}), ("int64", "int64")
    )


def clicks_rows(encoder: FittedEncoder, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw inputs of some rows; ids include ones that the vocabularies do not hold."""
    random = np.random.default_rng(seed)
    return {
        feature.name: random.integers(0, 5, rows) * 10
        if feature.type == "categorical"
        else random.uniform(0, 12, rows).astype(np.float32)
        for feature in encoder.spec.inputs
    }


def tiny_config(encoder: FittedEncoder, preset: str = "default", members: int = 1) -> NetworkConfig:
    """A DeepFM small enough for tests."""
    changes: dict[str, Any] = {"fm_size": 4, "hidden": (8, 4), "dropout": 0.0}
    return config_for("deepfm", preset, encoder.rows, members, encoder.id_types, **changes)


def tiny_ranker(encoder: FittedEncoder, preset: str = "default", members: int = 1) -> Ranker:
    """Untrained; seed torch before for the same weights."""
    return Ranker(encoder.spec, tiny_config(encoder, preset, members)).eval()


def tiny_request(encoder: FittedEncoder, items: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw inputs of one user and some items; ids include ones that the vocabularies do not hold."""
    random = np.random.default_rng(seed)

    def identities(prefix: str, numbers: np.ndarray) -> np.ndarray:
        if encoder.id_types[0] == "int64":
            return numbers.astype(np.int64)
        return np.array([f"{prefix}{number}" if number else "" for number in numbers.ravel()], object).reshape(
            numbers.shape
        )

    values = {
        "user_id": identities("u", random.integers(1, 9, 1)),
        "item_id": identities("i", random.integers(1, 12, items)),
        "genres": random.choice([*GENRES, "Opera", ""], (items, 3)).astype(object),
        "history": identities("i", random.integers(0, 9, (1, 4))),
        "history_labels": random.integers(0, 2, (1, 4)).astype(np.float32),
        "age": random.uniform(10, 60, 1).astype(np.float32),
        "events": random.integers(0, 50, 1).astype(np.float32),
        "positives": random.integers(0, 9, 1).astype(np.float32),
        "last_timestamp": np.array([880_000_000], np.int64),
        "taste": random.random((1, 2), np.float32),
        "taste_events": random.random((1, 2), np.float32) * 5,
        "text": random.standard_normal((items, 2)).astype(np.float32),
        "places": random.integers(0, 2, (items, 2)).astype(np.float32),
        "popularity": random.uniform(-3, 20, items).astype(np.float32),
        "now": np.array([880_000_777], np.int64),
        "recall": random.standard_normal(items).astype(np.float32),
    }
    return {feature.name: values[feature.name] for feature in encoder.spec.inputs}
