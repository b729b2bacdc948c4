"""Step 1 of the ranking sync: raw features of users and items into the feature store, and read back.

Entities, views and services come from the release's feature spec. They lie beside the live release's; the stable services
`ml_user` and `ml_item` follow only when the release goes live. What was written is read back through Feast's SDK, as servers
read it, and, when `stores.feature_server` names one, through the HTTP feature server.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import StoreError
from data_exchange_center.feature_spec import Feature
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.lock import publish_lock
from offline_to_online.profiles import sample_rows
from offline_to_online.rank.feature_server import verify_feature_server
from online.stores.open import open_features
from online.stores.ports import FeatureRows, FeatureStore
from online.stores.stored_features import id_types, numpy_column, stored_column, stored_features

SAMPLE = 500  # users read back; items are compared all
READ_TIMEOUT_S = 10.0


def load_features(release: Release, features: FeatureStore) -> dict[str, Any]:
    """Registers and materializes; returns `views` (rows of each) and `load_seconds`."""
    started = time.perf_counter()
    return {"views": features.load(release), "load_seconds": round(time.perf_counter() - started, 3)}


def verify_features(release: Release, features: FeatureStore, sample: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """Compares a random sample of users and all items with the release's tables, in every bit.

    Raises:
        StoreError: a row is missing or of another moment, or a value differs; the message names the entity and the feature.
    """
    spec = release.spec()
    if features.fingerprint(release.id) != release.manifest["feature_spec_sha256"]:
        raise StoreError(f"feature store: release {release.id} was stored with another feature spec")
    users = release.table("user_features")
    users = users.take(pa.array(sample_rows(users.num_rows, sample, seed)))
    read = [features.user(release.id, user, READ_TIMEOUT_S) for user in users[c.USER_ID].to_pylist()]
    same_rows("user", users, c.USER_ID, spec.user_features, joined(read))
    items = release.table("item_features")
    same_rows("item", items, c.ITEM_ID, spec.item_features, features.items(release.id, items[c.ITEM_ID].to_pylist()))
    as_of = int(items[c.TIMESTAMP].to_numpy().max(initial=0))
    return {"verified_users": users.num_rows, "verified_items": items.num_rows, "as_of": as_of}


def verify_over_http(release: Release, settings: Settings, *, stable: bool = False) -> dict[str, Any]:
    """The same through the HTTP feature server that the settings name; nothing when they name none."""
    url, ca_file = settings.stores.feature_server, settings.stores.ca_file
    return dict(verify_feature_server(release, url, stable=stable, ca_file=ca_file)) if url else {}


def same_rows(entity: str, table: pa.Table, key: str, features: list[Feature], found: FeatureRows) -> None:
    """StoreError unless the stored rows are the table's."""

    def complain(name: str, differs: np.ndarray) -> None:
        if differs.any():
            identifier = table[key][int(np.argmax(differs))].as_py()
            raise StoreError(
                f"feature store: {name} of {entity} {identifier!r} is not what was written ({int(differs.sum())} rows differ)",
                field=name,
            )

    complain(c.TIMESTAMP, table[c.TIMESTAMP].to_numpy() != found.timestamps)
    for stored in stored_features(features, id_types(features, table)):
        expected = numpy_column(stored, stored_column(stored, table[stored.name]))
        actual = found.columns[stored.name]
        if actual.dtype != expected.dtype or actual.shape != expected.shape:
            raise StoreError(
                f"feature store: {stored.name} came back as {actual.dtype} {actual.shape}", field=stored.name
            )
        complain(stored.name, (actual != expected).reshape(len(expected), -1).any(axis=1))


def joined(rows: list[FeatureRows]) -> FeatureRows:
    """Rows read one by one as one block."""
    names = rows[0].columns if rows else {}
    columns = {name: np.concatenate([row.columns[name] for row in rows]) for name in names}
    return FeatureRows(columns, np.concatenate([row.timestamps for row in rows]) if rows else np.empty(0, np.int64))


def sync_features(settings: Settings, release_id: str = "") -> dict[str, Any]:
    """Loads and verifies one release (the newest one by default)."""
    release = find_release(settings, release_id)
    with publish_lock(settings, f"s1_feature_to_feast {release.id}"):
        features = open_features(settings)
        try:
            loaded = {**load_features(release, features), **verify_features(release, features)}
            return {"release": release.id, **loaded, **verify_over_http(release, settings)}
        finally:
            features.close()


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.add_argument("--release", default="", help="a release's id (default: the newest)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return sync_features(settings, parsed.release)

    run_step("s1_feature_to_feast", arguments, step, argv)


if __name__ == "__main__":
    main()
