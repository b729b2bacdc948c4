"""Makes tiny but complete releases, without any training, for tests of the stores, the sync and the online chain.

    settings = make_settings(tmp_path)
    release = make_release(tmp_path, users=30, items=80, ids="string", seed=1)
    scorer = make_scorer_release(tmp_path)  # of kind "scorer", in Criteo's shape; make_rows gives it rows

A release holds what a real one holds: every table, a feature spec with user, item, context and candidate features (numbers,
strings, lists of both), recall arrays, and an ONNX graph that takes raw features with the encoding inside. The graph is a
sum of small effects of every input, so that any altered value shows in the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import yaml

from data_exchange_center import columns as c
from data_exchange_center import tables
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.release import Release, new_release, open_release
from data_exchange_center.rows.schema import criteo_schema
from data_exchange_center.scored_rows import SAMPLE
from data_exchange_center.settings import Settings, load_settings
from data_exchange_center.workspace import Workspace, write_table
from tests.computed_features import COMPUTED, write_computed
from tests.recall_arrays import write_recall
from tests.tiny_model import write_model

TERMS = ("Action", "Comedy", "Crime", "Drama", "Horror", "Romance", "Thriller", "War")
GENDERS = ("F", "M")
SNAPSHOT = 893_286_638  # unix seconds of the newest known event, plus 1
HISTORY = 6  # elements of the sequence feature
ITEM_TERMS = 3  # elements of the multi-categorical feature
DIMENSION = 8  # of the recall embeddings; vectors have 2 more elements
ROW_NUMBERS = tuple(f"i{n}" for n in range(1, 14))
ROW_IDS = tuple(f"c{n}" for n in range(1, 27))
ROW_TOKENS = 40  # ids that the scorer's model knows, of each column


@dataclass(frozen=True)
class Content:
    """What a release is made of, before it is written. Rows of users and items are places in the id arrays."""

    user_ids: list[int] | list[str]
    item_ids: list[int] | list[str]
    genders: list[str]
    ages: np.ndarray  # float32 [users]
    item_terms: list[list[str]]
    years: np.ndarray  # int64 [items]
    histories: list[np.ndarray]  # item rows, oldest first
    labels: list[np.ndarray]
    times: list[np.ndarray]  # unix seconds

    @property
    def id_type(self) -> pa.DataType:
        return pa.string() if isinstance(self.user_ids[0], str) else pa.int64()


def make_settings(tmp_path: Path, **dotted: object) -> Settings:
    """Settings whose store lies in `tmp_path`, nothing taken from the environment; `dotted` as in `with_values`."""
    store = {"data.store": str(tmp_path / "store"), "data.dataset": "tiny"}
    return load_settings(environment={}).with_values(**{**store, **dotted})


def make_release(
    tmp_path: Path,
    users: int = 40,
    items: int = 90,
    ids: Literal["int", "string"] = "int",
    seed: int = 0,
    settings: Settings | None = None,
    *,
    follows: bool = False,
) -> Release:
    """Writes a complete release below `tmp_path/store/releases` and opens it; another seed is another release.

    Args:
        follows: user features are computed from the events by the offline expressions, and later events change them.
    """
    settings = settings or make_settings(tmp_path)
    generator = np.random.default_rng(seed)
    content = make_content(generator, users, items, ids)
    return write_chain_release(settings, seed, content, generator, follows=follows)


def write_chain_release(
    settings: Settings,
    seed: int,
    content: Content,
    generator: np.random.Generator,
    *,
    follows: bool = False,
    finish: Callable[[Path], None] = lambda _: None,
) -> Release:
    """Writes a release of this content into the settings' store.

    Args:
        follows: as in `make_release`. finish: changes the files in the release's folder before they are checksummed.
    """
    manifest = {
        "scene": settings.scene,
        "data_window": {"first": SNAPSHOT - 10_000_000, "last": SNAPSHOT - 1},
        "rows": {"offline": int(sum(map(len, content.histories)))},
        "metrics": {},
    }
    with new_release(settings.with_values(seed=seed), manifest) as (identifier, folder):
        spec = write_spec(folder / "feature_spec.yaml", settings.scene, COMPUTED if follows else ())
        write_tables(folder, content, spec)
        if follows:
            write_computed(folder / "tables", spec, settings.features.history_length)
        write_recall(folder, content, generator, DIMENSION)
        write_chain_model(folder / "model" / "model.onnx", spec, content, generator)
        finish(folder)
    return open_release(Workspace(settings).releases / identifier)


def write_chain_model(path: Path, spec: FeatureSpec, content: Content, generator: np.random.Generator) -> None:
    """The graph of a chain release, which knows the ids and the words of its content."""
    strings = sorted({term for terms in content.item_terms for term in terms} | {*content.genders, "unknown"})
    tokens: dict[str, Any] = {feature.name: strings for feature in spec.inputs if feature.dtype == "string"}
    tokens |= {"user_id": content.user_ids, "item_id": content.item_ids, "history_items": content.item_ids}
    write_model(path, spec, tokens, str(content.id_type), generator)


def make_scorer_release(tmp_path: Path, seed: int = 0, settings: Settings | None = None, rows: int = 50) -> Release:
    """Writes a release of kind "scorer" for rows in Criteo's shape; another seed is another release.

    The graph's inputs are called `raw_<feature>`, so that a feature's name taken for an input's shows.
    """
    settings = settings or make_settings(tmp_path, **{"features.spec": "criteo"})
    generator = np.random.default_rng(seed)
    scorer = {
        "columns": criteo_schema().describe(),
        "inputs": {name: f"raw_{name}" for name in (*ROW_NUMBERS, *ROW_IDS)},
        "output": "like",
    }
    manifest = {"rows": {}, "metrics": {}, "scorer": scorer}
    with new_release(settings.with_values(seed=seed), manifest, "scorer") as (identifier, folder):
        declared = row_features(settings.scene)
        (folder / "feature_spec.yaml").write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
        tokens = {f"raw_{name}": range(1, ROW_TOKENS) for name in ROW_IDS}
        renamed = FeatureSpec.model_validate(row_features(settings.scene, "raw_"))
        write_model(folder / "model" / "model.onnx", renamed, tokens, "int64", generator)
        write_table(folder / SAMPLE, make_rows(rows, seed).drop_columns(["label"]))
    return open_release(Workspace(settings).releases / identifier)


def row_features(scene: str, prefix: str = "") -> dict[str, Any]:
    """The declaration of Criteo's 13 numbers and 26 ids, as a YAML tree; a missing number is -1."""
    candidate = {"entity": "candidate"}
    numbers = [{"name": prefix + name, **candidate, "type": "numeric", "default": -1.0} for name in ROW_NUMBERS]
    coded = {"type": "categorical", "dtype": "int64", "vocabulary": {"policy": "learned"}, "embedding": 4}
    return {
        "scene": scene,
        "features": [*numbers, *({"name": prefix + name, **candidate, **coded} for name in ROW_IDS)],
    }


def make_rows(count: int, seed: int = 0) -> pa.Table:
    """Random rows in Criteo's shape: label, i1 to i13, c1 to c26; a tenth of the values is missing, a tenth of the ids unseen."""
    generator = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {"label": pa.array((generator.random(count) < 0.2).astype(np.float32))}
    for name in ROW_NUMBERS:
        values = generator.integers(0, 60, count).astype(np.float32)
        columns[name] = pa.array(values, mask=generator.random(count) < 0.1)
    for name in ROW_IDS:
        ids = generator.integers(1, ROW_TOKENS * 10 // 9, count)
        columns[name] = pa.array(ids, mask=generator.random(count) < 0.1)
    return pa.table(columns)


def make_content(generator: np.random.Generator, users: int, items: int, ids: str) -> Content:
    """Random users, items and events. Ids have gaps and are in no order, so that an id taken for a row shows."""
    numbers = generator.permutation(3 * items)[:items] + 1
    people = generator.permutation(3 * users)[:users] + 1
    histories = [
        generator.permutation(items)[: generator.integers(3, max(4, items // 4))].astype(np.int32) for _ in range(users)
    ]
    return Content(
        user_ids=[f"user-{n}" for n in people] if ids == "string" else [int(n) for n in people],
        item_ids=[f"item/{n}é" for n in numbers] if ids == "string" else [int(n) for n in numbers],
        genders=[GENDERS[n] for n in generator.integers(0, 2, users)],
        ages=generator.integers(10, 70, users).astype(np.float32),
        item_terms=[
            sorted(generator.choice(TERMS, generator.integers(1, ITEM_TERMS + 1), replace=False).tolist())
            for _ in range(items)
        ],
        years=generator.integers(1930, 1999, items).astype(np.int64),
        histories=histories,
        labels=[generator.integers(0, 2, len(rows)).astype(np.int8) for rows in histories],
        times=[np.sort(generator.integers(SNAPSHOT - 10_000_000, SNAPSHOT, len(rows))) for rows in histories],
    )


def write_spec(path: Path, scene: str, computed: tuple[dict[str, Any], ...] = ()) -> FeatureSpec:
    """A spec with every entity, dtype and list kind that the stores and the chain must carry.

    Args:
        computed: further features of the user.
    """
    learned = {"policy": "learned"}
    features: list[dict[str, Any]] = [
        {"name": "user_id", "entity": "user", "type": "categorical", "dtype": "id", "key": True},
        {"name": "item_id", "entity": "item", "type": "categorical", "dtype": "id", "key": True},
        {"name": "gender", "entity": "user", "type": "categorical", "dtype": "string", "default": "unknown"},
        {"name": "age", "entity": "user", "type": "numeric", "default": 30.0},
        {"name": "user_last_timestamp", "entity": "user", "type": "numeric", "dtype": "int64"},
        {"name": "history_items", "entity": "user", "type": "sequence", "dtype": "id", "length": HISTORY},
        {"name": "genre_rates", "entity": "user", "type": "dense_vector", "length": len(TERMS)},
        *(dict(feature) for feature in computed),
        {"name": "genres", "entity": "item", "type": "multi_categorical", "dtype": "string", "length": ITEM_TERMS},
        {"name": "year", "entity": "item", "type": "numeric", "dtype": "int64"},
        {"name": "item_events", "entity": "item", "type": "numeric"},
        {"name": "now", "entity": "context", "type": "numeric", "dtype": "int64"},
        {"name": "recall_vector", "entity": "candidate", "type": "numeric", "heads": ["choose"]},
        {"name": "recall_item", "entity": "candidate", "type": "numeric", "heads": ["choose"]},
        {"name": "recall_term", "entity": "candidate", "type": "numeric", "heads": ["choose"]},
        {"name": "recall_popularity", "entity": "candidate", "type": "numeric", "heads": ["choose"]},
    ]
    for feature in features:
        if feature["type"] in ("categorical", "multi_categorical", "sequence"):
            feature |= {"vocabulary": learned, "embedding": 4}
    path.write_text(yaml.safe_dump({"scene": scene, "features": features}, sort_keys=False), encoding="utf-8")
    return load_spec(path)


def write_tables(folder: Path, content: Content, spec: FeatureSpec) -> None:
    """Users, items, profiles and both feature snapshots, as the offline stages would write them."""
    ids, counts = content.id_type, np.bincount(np.concatenate(content.histories), minlength=len(content.item_ids))
    users = pa.table({c.USER_ID: pa.array(content.user_ids, ids), "gender": content.genders})
    titles = [f"Item {item}" for item in content.item_ids]
    terms = pa.array(content.item_terms, tables.STRINGS)
    items = pa.table(
        {c.ITEM_ID: pa.array(content.item_ids, ids), c.TITLE: titles, c.TERMS: terms, c.YEAR: content.years}
    )
    profiles = pa.table(
        {
            c.USER_ID: pa.array(content.user_ids, ids),
            "segment": content.genders,
            "last_timestamp": pa.array([int(times[-1]) for times in content.times], pa.int64()),
            "terms": pa.array(
                [preferred_terms(content, user)[0] for user in range(len(content.user_ids))], tables.STRINGS
            ),
            "term_weights": pa.array(
                [preferred_terms(content, user)[1] for user in range(len(content.user_ids))], pa.list_(pa.float32())
            ),
            "history": pa.array(content.histories, pa.list_(pa.int32())),
            "history_labels": pa.array(content.labels, pa.list_(pa.int8())),
            "history_timestamps": pa.array(content.times, pa.list_(pa.int64())),
            "history_values": pa.array([2.0 + 2.0 * labels for labels in content.labels], pa.list_(pa.float32())),
        }
    )
    rates = np.array(
        [[np.mean([term in content.item_terms[row] for row in rows]) for term in TERMS] for rows in content.histories]
    )
    newest = [[content.item_ids[row] for row in rows[::-1][:HISTORY]] for rows in content.histories]
    user_features = pa.table(
        {
            c.USER_ID: pa.array(content.user_ids, ids),
            c.TIMESTAMP: pa.array(np.full(len(content.user_ids), SNAPSHOT), pa.int64()),
            "gender": content.genders,
            "age": content.ages,
            "user_last_timestamp": pa.array([int(times[-1]) for times in content.times], pa.int64()),
            "history_items": pa.array(newest, pa.list_(ids)),
            "genre_rates": pa.array(list(rates.astype(np.float32)), pa.list_(pa.float32())),
        }
    )
    item_features = pa.table(
        {
            c.ITEM_ID: pa.array(content.item_ids, ids),
            c.TIMESTAMP: pa.array(np.full(len(content.item_ids), SNAPSHOT), pa.int64()),
            "genres": terms,
            "year": content.years,
            "item_events": counts.astype(np.float32),
        }
    )
    for name, table, schema in (
        ("users", users, tables.USERS),
        ("items", items, tables.ITEMS),
        ("user_profiles", profiles, tables.USER_PROFILES),
        ("user_features", user_features, tables.USER_FEATURES),
        ("item_features", item_features, tables.ITEM_FEATURES),
    ):
        write_table(folder / "tables" / f"{name}.parquet", schema.validate(table))
    promised = {feature.name for feature in (*spec.user_features, *spec.item_features)}
    promised -= {feature["name"] for feature in COMPUTED}
    assert promised <= {*user_features.column_names, *item_features.column_names}


def preferred_terms(content: Content, user: int) -> tuple[list[str], list[float]]:
    """A user's terms by their share of the liked items' terms, best first."""
    liked = [row for row, label in zip(content.histories[user], content.labels[user], strict=True) if label]
    counted = {term: sum(term in content.item_terms[row] for row in liked) for term in TERMS}
    ordered = sorted((term for term in TERMS if counted[term]), key=lambda term: (-counted[term], term))
    total = sum(counted.values())
    return ordered, [counted[term] / total for term in ordered]
