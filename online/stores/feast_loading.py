"""Writes a release's features into Feast: sources, definitions, materialization; and takes them out again."""

from __future__ import annotations

import contextlib
import io
import shutil
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.feature_spec import Feature
from data_exchange_center.input_blocks import in_block_order
from data_exchange_center.release import Release
from data_exchange_center.workspace import write_table
from online.stores.feast_definitions import entity, service, view
from online.stores.feast_import import FeastObjectNotFoundException, FeatureStore, FeatureView
from online.stores.feast_names import (
    EVENT_TIMESTAMP,
    FEATURE_TIMESTAMP,
    ITEM_KEY,
    KINDS,
    PAYLOAD,
    SHARD_KEY,
    USER_KEY,
    stable_name,
    view_name,
)
from online.stores.item_shards import pack
from online.stores.stored_features import id_types, stored_column, stored_features
from online.stores.user_rows import pack_rows


def load_release(feast: FeatureStore, release: Release, folder: Path) -> dict[str, int]:
    """Registers a release's views and services and materializes them; returns rows per view.

    Rows are stamped with the moment of the load, at least a second after any load before: online stores drop what is not newer.
    """
    loaded = max(int(time.time()), last_load(feast, release.id) + 1)
    spec = release.spec()
    views: list[FeatureView] = []
    rows: dict[str, int] = {}
    for kind, table, key, features in (
        ("user", release.table("user_features"), c.USER_ID, spec.user_features),
        ("item", release.table("item_features"), c.ITEM_ID, spec.item_features),
    ):
        made, counts = write_sources(kind, release, table, key, in_block_order(spec, features), folder, loaded)
        views += made
        rows |= counts
    with quiet():
        entities = {owner.name: owner for made in views for owner in [entity(made.tags["kind"], made.tags["id_type"])]}
        feast.apply([*entities.values(), *views, *(service(made.name, made) for made in views)])
        moment = datetime.fromtimestamp(loaded, UTC)
        feast.materialize(
            moment - timedelta(days=1), moment + timedelta(seconds=1), feature_views=[made.name for made in views]
        )
    return rows


def write_sources(
    kind: str, release: Release, table: pa.Table, key: str, features: list[Feature], folder: Path, loaded: int
) -> tuple[list[FeatureView], dict[str, int]]:
    """Writes the Parquet files of one entity's views; returns the views and their rows."""
    stored = stored_features(features, id_types(features, table))
    columns = {feature.name: stored_column(feature, table[feature.name]) for feature in stored}
    keys, as_of = table[key].combine_chunks(), table[c.TIMESTAMP].combine_chunks()
    id_type = "string" if pa.types.is_string(keys.type) else "int64"
    join_key = USER_KEY if kind == "user" else ITEM_KEY
    parts = {kind: pa.table({join_key: keys, FEATURE_TIMESTAMP: as_of, **columns})}
    if kind == "user":
        packed = pack_rows(stored, as_of, columns)
        parts["row"] = pa.table({USER_KEY: keys, PAYLOAD: pa.array(packed, pa.binary())})
    else:
        shards = pack(stored, keys, as_of, columns, loaded)
        numbers = pa.array(range(len(shards)), pa.int64())
        parts["shard"] = pa.table({SHARD_KEY: numbers, PAYLOAD: pa.array(shards, pa.binary())})
    views, rows = [], {}
    for name, part in parts.items():
        stamps = pa.array([loaded * 1_000_000] * part.num_rows, pa.timestamp("us", tz="UTC"))
        path = folder / f"{name}.parquet"
        write_table(path, part.append_column(EVENT_TIMESTAMP, stamps))
        tags = {
            "kind": name,
            "loaded": str(loaded),
            "rows": str(part.num_rows),
            "feature_spec_sha256": str(release.manifest["feature_spec_sha256"]),
        }
        made = view(name, release.id, id_type, stored, path, tags)
        views.append(made)
        rows[made.name] = part.num_rows
    return views, rows


def last_load(feast: FeatureStore, release: str) -> int:
    """When the release was loaded last, unix seconds; 0 when it never was."""
    feast.refresh_registry()
    known = [made for made in feast.list_feature_views() if made.tags.get("release") == release]
    return max((int(made.tags["loaded"]) for made in known), default=0)


def promote_release(feast: FeatureStore, release: str) -> None:
    """Points the stable services at a release's views."""
    feast.refresh_registry()
    with quiet():
        feast.apply(
            [service(stable_name(kind), feast.get_feature_view(view_name(kind, release))) for kind in ("user", "item")]
        )


def drop_release(feast: FeatureStore, release: str, folder: Path) -> None:
    """Takes out a release's services, views and what they hold online; those that are not there are no error."""
    feast.refresh_registry()
    gone: list[Any] = []
    for kind in KINDS:
        name = view_name(kind, release)
        with contextlib.suppress(FeastObjectNotFoundException):
            gone.append(feast.get_feature_service(name))
        with contextlib.suppress(FeastObjectNotFoundException):
            gone.append(feast.get_feature_view(name))
    if gone:
        with quiet():
            feast.apply([], objects_to_delete=gone, partial=False)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Feast announces on stdout what it does, and its libraries warn their own callers; programs print their own summary."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
