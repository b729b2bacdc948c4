"""`FeatureStore` on Feast: users by one read each, items from a snapshot in process that is loaded through Feast.

    <store>/online/feast/   registry.db, feature_store.yaml (for `feast serve`), sources/<release>/*.parquet

A user's read goes to Feast's online store itself, for one view, key and value: what Feast does around it for any number of them
costs more than the read. Shards are read through a service. An absent shard is known by its event timestamp, because stores differ
in what else they say. The snapshot is refreshed in the background when it is older than `SNAPSHOT_SECONDS`, by swapping
one reference; when that fails, the one at hand stays. A release whose snapshot could not be loaded is loaded in the background
too, so that no request waits for a store that is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.workspace import atomic_path
from online.stores.feast_import import (
    EntityKeyProto,
    FeastObjectNotFoundException,
    FeatureService,
    FeatureView,
    OnlineStore,
    RegistryConfig,
    RepoConfig,
    ValueProto,
)
from online.stores.feast_import import FeatureStore as Feast
from online.stores.feast_loading import drop_release, load_release, promote_release
from online.stores.feast_names import PAYLOAD, SHARD_KEY, USER_KEY, view_name
from online.stores.item_shards import Snapshot, shard_count, unpack
from online.stores.lru import OpenReleases
from online.stores.ports import FeatureRows, FeatureStore, Id
from online.stores.stored_features import Layout, StoredFeature, from_text
from online.stores.user_rows import unpack_row

log = logging.getLogger("marquee.stores")

SNAPSHOT_SECONDS = 30.0
RETRY_SECONDS = 1.0  # between two tries to load a snapshot that could not be loaded
SHARDS_A_READ = 64


@dataclass(frozen=True)
class OpenView:
    """A release's view as readers need it."""

    view: FeatureView
    service: FeatureService
    layout: Layout
    id_type: str
    spec_sha256: str

    def knows(self, identifier: Id) -> bool:
        """Whether an id is of the type that this release's ids are of."""
        return isinstance(identifier, str) == (self.id_type == "string")


@dataclass
class HeldSnapshot:
    """A release's snapshot; `snapshot` is swapped when it is refreshed."""

    snapshot: Snapshot
    loaded: float
    refreshing: threading.Lock


class FeastFeatures(FeatureStore):
    """See the module's docstring.

    Args:
        project: Feast's project: the scene.
        folder: where registry and sources lie.
        online_store: Feast's configuration of the online store.
        away: exceptions of the online store's client that mean that it cannot be reached.
    """

    def __init__(
        self, project: str, folder: Path, online_store: dict[str, Any], away: tuple[type[Exception], ...]
    ) -> None:
        self._folder = folder
        self._away: tuple[type[Exception], ...] = (*away, OSError)
        folder.mkdir(parents=True, exist_ok=True)
        tree: dict[str, Any] = {
            "project": project,
            "provider": "local",
            "online_store": online_store,
            "offline_store": {"type": "duckdb"},
            "entity_key_serialization_version": 3,
        }
        registry = {
            "path": str(folder / "registry.db"),
            "cache_ttl_seconds": 0,
        }  # refreshed when a release is not in it
        self._yaml = yaml.safe_dump({**tree, "registry": registry}, sort_keys=False)
        self._feast = Feast(config=RepoConfig(**tree, registry=RegistryConfig(**registry)))
        self._online: OnlineStore = self._feast._get_provider().online_store
        self._registry = threading.Lock()
        self._users: OpenReleases[OpenView] = OpenReleases(lambda release: self._opened("row", release))
        self._items: OpenReleases[HeldSnapshot] = OpenReleases(self._held)
        self._missing: dict[
            str, float
        ] = {}  # releases whose snapshot could not be loaded, and when that was tried last
        self._retrying = threading.Lock()

    def user(self, release: str, user_id: Id, timeout: float) -> FeatureRows:
        if timeout <= 0:
            raise StoreUnavailable("feature store: no time left to ask")
        view = self._users.get(release)
        if not view.knows(user_id):
            return absent_row(view.layout.features)
        value = ValueProto(string_val=user_id) if isinstance(user_id, str) else ValueProto(int64_val=user_id)
        key = EntityKeyProto(join_keys=[USER_KEY], entity_values=[value])
        with self._errors():
            ((_, found),) = self._online.online_read(self._feast.config, view.view, [key], [PAYLOAD])
        payload = found[PAYLOAD].bytes_val if found else b""
        return unpack_row(view.layout, payload) if payload else absent_row(view.layout.features)

    def items(self, release: str, item_ids: Sequence[Id] | np.ndarray) -> FeatureRows:
        if release in self._missing:
            self._try_again(release)
            raise StoreUnavailable(f"feature store: item features of {release} could not be loaded yet")
        try:
            held = self._items.get(release)
        except StoreUnavailable:
            self._missing[release] = time.monotonic()
            raise
        if time.monotonic() - held.loaded > SNAPSHOT_SECONDS and held.refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh, args=(release, held), name="item-features", daemon=True).start()
        return held.snapshot.gather(item_ids)

    def load(self, release: Release) -> dict[str, int]:
        with atomic_path(self._folder / "feature_store.yaml") as temporary:
            temporary.write_text(self._yaml, encoding="utf-8")
        rows = load_release(self._feast, release, self._folder / "sources" / release.id)
        self._users.forget(release.id)
        self._items.forget(release.id)
        self._missing.pop(release.id, None)
        return rows

    def fingerprint(self, release: str) -> str:
        return self._users.get(release).spec_sha256

    def promote(self, release: Release) -> None:
        promote_release(self._feast, release.id)

    def releases(self) -> list[str]:
        with self._registry:
            self._feast.refresh_registry()
        found = {view.tags["release"] for view in self._feast.list_feature_views() if "release" in view.tags}
        return sorted(found)

    def drop(self, release: str) -> None:
        drop_release(self._feast, release, self._folder / "sources" / release)
        self._users.forget(release)
        self._items.forget(release)
        self._missing.pop(release, None)

    def ping(self, timeout: float) -> None:
        """The embedded online store is a file of this machine: it answers."""

    def close(self) -> None:
        self._users.clear()
        self._items.clear()

    def _read(self, service: FeatureService, keys: dict[str, list[Any]]) -> Any:
        with self._errors():
            return self._feast.get_online_features(features=service, entity_rows=keys).proto

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Feast's errors as the port's."""
        try:
            yield
        except self._away as error:
            raise StoreUnavailable(f"feature store: {error}") from error
        except FeastObjectNotFoundException as error:
            raise StoreUnavailable(f"feature store: {error}; publish the release again") from error
        except ValueError as error:  # Feast's plain error for a view that is being materialized again right now
            raise StoreUnavailable(f"feature store: {error}") from error

    def _opened(self, kind: str, release: str) -> OpenView:
        name = view_name(kind, release)
        try:
            view, service = self._defined(name)
        except FeastObjectNotFoundException:
            with self._registry:
                self._feast.refresh_registry()
            try:
                view, service = self._defined(name)
            except FeastObjectNotFoundException as error:
                raise StoreUnavailable(f"feature store: no features of release {release}; publish it") from error
        layout = Layout(from_text(view.tags["features"]))
        return OpenView(view, service, layout, view.tags["id_type"], view.tags["feature_spec_sha256"])

    def _defined(self, name: str) -> tuple[Any, FeatureService]:
        view = self._feast.registry.get_feature_view(name, self._feast.project, allow_cache=True)
        return view, self._feast.get_feature_service(name, allow_cache=True)

    def _held(self, release: str) -> HeldSnapshot:
        return HeldSnapshot(self._loaded(release), time.monotonic(), threading.Lock())

    def _loaded(self, release: str) -> Snapshot:
        view = self._opened("shard", release)
        shards = self._shards(view, release, range(1))
        numbers = range(1, shard_count(shards[0]))
        for start in range(0, len(numbers), SHARDS_A_READ):
            shards += self._shards(view, release, numbers[start : start + SHARDS_A_READ])
        return unpack(view.layout.features, shards)

    def _shards(self, view: OpenView, release: str, numbers: Sequence[int]) -> list[bytes]:
        answer = self._read(view.service, {SHARD_KEY: list(numbers)})
        payloads = answer.results[-1]
        for number, timestamp in zip(numbers, payloads.event_timestamps, strict=True):
            if not timestamp.seconds:
                raise StoreUnavailable(
                    f"feature store: release {release} lacks shard {number} of its items; publish it again"
                )
        return [value.bytes_val for value in payloads.values]

    def _try_again(self, release: str) -> None:
        """Loads a missing snapshot in the background: one try at a time, and not more often than every RETRY_SECONDS."""
        due = time.monotonic() - self._missing.get(release, 0.0) > RETRY_SECONDS
        if due and self._retrying.acquire(blocking=False):
            threading.Thread(target=self._retry, args=(release,), name="item-features", daemon=True).start()

    def _retry(self, release: str) -> None:
        try:
            self._items.get(release)
        except StoreError as error:
            self._missing[release] = time.monotonic()
            log.warning("item features of %s: %s", release, error)
        else:
            self._missing.pop(release, None)
        finally:
            self._retrying.release()

    def _refresh(self, release: str, held: HeldSnapshot) -> None:
        try:
            held.snapshot = self._loaded(release)
        except StoreError as error:
            log.warning(
                "item features of %s are %.0f s old and stay: %s", release, time.monotonic() - held.loaded, error
            )
        finally:
            held.loaded = time.monotonic()
            held.refreshing.release()


def absent_row(features: Sequence[StoredFeature]) -> FeatureRows:
    """The row of somebody unknown: the defaults, timestamp 0."""
    return FeatureRows({feature.name: feature.defaults(1) for feature in features}, np.zeros(1, np.int64))
