"""What Feast is told about a release: entities, views and services, generated from the feature spec.

    entities   user_int64 or user_string (join key `userid`), item_int64 or item_string (`itemid`), item_shard (`shard`)
    views      ml_user_<release>    a user's raw features: for the feature server and for joins
               ml_row_<release>     the same users, all features in one value: what requests read
               ml_item_<release>    an item's raw features, one row per item: for the feature server and for joins
               ml_shard_<release>   the same items, 256 rows to a value: what servers load their snapshot from
    services   by the same names; `ml_user` and `ml_item` are the stable ones that follow the live release

A release's id loses its hyphens in these names, since they become table names. Every row carries the time it was loaded as
Feast's event timestamp (a store keeps the newest one, so that loading again replaces what is there) and `feature_timestamp`,
the moment as of which its features hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from online.stores.feast_import import (
    Array,
    Bytes,
    Entity,
    FeastType,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float32,
    Int64,
    ParquetFormat,
    String,
    ValueType,
)
from online.stores.feast_names import (
    EVENT_TIMESTAMP,
    FEATURE_TIMESTAMP,
    ITEM_KEY,
    PAYLOAD,
    SHARD_KEY,
    USER_KEY,
    view_name,
)
from online.stores.stored_features import StoredFeature, to_text

FEAST: dict[str, Any] = {"int64": Int64, "float32": Float32, "string": String}
VALUE = {"int64": ValueType.INT64, "string": ValueType.STRING}


def entity(kind: str, id_type: str) -> Entity:
    """The entity of a kind; one per id type, because a project may have held another log before."""
    if kind == "shard":
        return Entity(name="item_shard", join_keys=[SHARD_KEY], value_type=ValueType.INT64)
    owner, key = ("item", ITEM_KEY) if kind == "item" else ("user", USER_KEY)
    return Entity(name=f"{owner}_{id_type}", join_keys=[key], value_type=VALUE[id_type])


def view(
    kind: str, release: str, id_type: str, features: Sequence[StoredFeature], source: Path, tags: dict[str, str]
) -> FeatureView:
    """A release's view.

    Args:
        id_type: int64 or string, of the join key.
        features: what the rows hold, packed or not.
        source: the Parquet file that is materialized.
        tags: kept with the view, beside the features' form.
    """
    owner = entity(kind, id_type)
    key = owner.join_key
    name = view_name(kind, release)
    if kind in ("row", "shard"):
        fields = [Field(name=PAYLOAD, dtype=Bytes)]
    else:
        fields = [Field(name=FEATURE_TIMESTAMP, dtype=Int64)]
        fields += [Field(name=feature.name, dtype=feast_type(feature)) for feature in features]
    return FeatureView(
        name=name,
        entities=[owner],
        ttl=timedelta(0),
        schema=[Field(name=key, dtype=FEAST["int64" if kind == "shard" else id_type]), *fields],
        source=FileSource(name=name, path=str(source), file_format=ParquetFormat(), timestamp_field=EVENT_TIMESTAMP),
        online=True,
        tags={"release": release, "id_type": id_type, "features": to_text(features), **tags},
    )


def feast_type(feature: StoredFeature) -> FeastType:
    """Feast's type of a stored feature."""
    element: FeastType = FEAST[feature.dtype]
    return Array(element) if feature.length else element


def service(name: str, made_of: FeatureView) -> FeatureService:
    """A service with every feature of a view."""
    return FeatureService(name=name, features=[made_of], tags={"release": made_of.tags["release"]})
