"""`FeatureStore` on Feast with its SQLite online store: a file below the store's folder."""

from __future__ import annotations

import sqlite3

from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores.feast_features import FeastFeatures
from online.stores.ports import FeatureStore


def open_features(settings: Settings, url: str) -> FeatureStore:
    """The adapter on the store's folder."""
    folder = Workspace(settings).online / "feast"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "online.db"
    database = sqlite3.connect(path)
    try:
        # kept in the file: readers go on while a release is written, which they could not with a rollback journal
        database.execute("PRAGMA journal_mode=WAL")
    finally:
        database.close()
    return FeastFeatures(settings.scene, folder, {"type": "sqlite", "path": str(path)}, (sqlite3.Error,))
