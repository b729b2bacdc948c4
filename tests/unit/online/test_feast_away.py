"""Item features whose store was away are loaded in the background: no request waits for them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from data_exchange_center.errors import StoreUnavailable
from online.stores.open import open_features
from tests.factories import make_release, make_settings
from tests.servers import RedisServer


def test_a_missing_snapshot_is_loaded_once_the_store_is_back(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        settings = make_settings(tmp_path, **{"stores.feature_store": server.url})
        release = make_release(tmp_path, settings=settings)
        publisher, features = open_features(settings), open_features(settings)
        publisher.load(release)
        items = release.table("items")["item_id"].to_pylist()
        server.pause()
        with pytest.raises(StoreUnavailable):  # the first one waits, a few seconds at most
            features.items(release.id, items)
        time.sleep(1.1)
        started = time.perf_counter()
        for _ in range(20):
            with pytest.raises(StoreUnavailable, match="yet"):
                features.items(release.id, items)
        assert time.perf_counter() - started < 0.5
        server.resume()
        deadline = time.monotonic() + 10
        while True:
            try:
                found = features.items(release.id, items)
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert found.present.all()
        features.close()
        publisher.close()
