"""A tiny release of the repair-shop scene: growing vocabularies, an encoder of texts and a graph, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.ready_rows import known_ids, ready_rows
from data_exchange_center.release import Release, new_release, open_release
from data_exchange_center.rows.schema import schema_of
from data_exchange_center.scored_rows import SAMPLE
from data_exchange_center.settings import Settings, TextSettings
from data_exchange_center.text_encoder import TEXT, TextEncoder
from data_exchange_center.vocabulary import FIRST, Vocabulary
from data_exchange_center.workspace import Workspace, write_json, write_table
from offline.text.sentence_model import make_encoder
from online.stores.ports import Stores
from tests.factories import make_settings
from tests.tiny_model import write_model
from tests.tiny_text import HIDDEN, write_tiny_model

BRANDS, SHOPS, CITIES = ("BMW", "宝马", "Škoda"), (7, 8, 9, 10), (1, 2)
CAPACITY, BUCKETS = 20, 32


def make_predict_release(tmp_path: Path, seed: int = 0, settings: Settings | None = None, learned: int = 0) -> Release:
    """Writes a release of kind "scorer" in the repair shop's shape; another seed is another release of the same weights.

    Args:
        learned: brands beyond `BRANDS`, by id, of which the model has learned something.
    """
    settings = settings or make_settings(tmp_path, **{"data.dataset": "repair_shop"})
    spec = FeatureSpec.model_validate(features(settings.serve.predict_scene))
    vocabularies = {
        "car_brand": Vocabulary("car_brand", BRANDS, CAPACITY),
        "shop_id": Vocabulary("shop_id", SHOPS, CAPACITY),
    }
    inputs = {feature.name: feature.name for feature in spec.inputs}
    manifest = {
        "rows": {},
        "metrics": {},
        "scorer": {"columns": schema_of(spec).describe(), "inputs": inputs, "output": "like"},
    }
    with new_release(settings.with_values(seed=seed), manifest, "scorer") as (identifier, folder):
        declared = yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
        (folder / "feature_spec.yaml").write_text(declared, encoding="utf-8")
        known = {
            "car_brand": range(FIRST, FIRST + len(BRANDS) + learned),
            "shop_id": range(FIRST, FIRST + len(SHOPS)),
            "city_id": CITIES,
        }
        write_model(folder / "model" / "model.onnx", spec, known, "int64", np.random.default_rng(0))
        write_json(folder / "model" / "network.json", {"rows": {name: 2 + CAPACITY for name in vocabularies}})
        for vocabulary in vocabularies.values():
            vocabulary.save(folder / "vocab_map")
        (folder / TEXT).mkdir()
        make_encoder(write_tiny_model(tmp_path / "sentence-model"), TextSettings(ngram_buckets=BUCKETS), folder / TEXT)
        rows = ready_rows(spec, raw_rows(20), known_ids(vocabularies), TextEncoder(folder / TEXT).encode)
        write_table(folder / SAMPLE, rows)
    return open_release(Workspace(settings).releases / identifier)


def publish_predictions(stores: Stores, release: Release) -> Release:
    """Its vocabularies and its model, then the pointer of its scene."""
    for name in ("car_brand", "shop_id"):
        stores.users.vocabularies.seed(release.scene, Vocabulary.load(release.path / "vocab_map", name))
    stores.scorer.load(release)
    stores.users.flip(release.scene, release.id, stores.users.live(release.scene, 5.0))
    return release


def features(scene: str) -> dict[str, Any]:
    """The declaration, as a YAML tree."""
    one = {"entity": "candidate"}
    coded = {**one, "type": "categorical", "dtype": "int64", "embedding": 4}
    growing = {"policy": "growing", "capacity": CAPACITY}
    return {
        "scene": scene,
        "features": [
            {"name": "car_brand", **coded, "vocabulary": {**growing, "token": "string"}},
            {"name": "shop_id", **coded, "vocabulary": growing},
            {"name": "city_id", **coded, "default": -1, "vocabulary": {"policy": "learned"}},
            *({"name": name, **one, "type": "numeric"} for name in ("distance_km", "price_score", "rating")),
            {"name": "text_vector", **one, "type": "dense_vector", "length": HIDDEN + BUCKETS, "text": "text_raw"},
        ],
    }


def raw_rows(count: int) -> pa.Table:
    """Rows as a log holds them, without labels."""
    random = np.random.default_rng(5)
    return pa.table(
        {
            "car_brand": pa.array([BRANDS[n % len(BRANDS)] for n in range(count)]),
            "shop_id": pa.array([SHOPS[n % len(SHOPS)] for n in range(count)]),
            "city_id": pa.array([CITIES[n % len(CITIES)] for n in range(count)]),
            **{
                name: pa.array(random.random(count).astype(np.float32))
                for name in ("distance_km", "price_score", "rating")
            },
            "text_raw": pa.array([f"{BRANDS[n % len(BRANDS)]} brakes squeal" for n in range(count)]),
        }
    )
