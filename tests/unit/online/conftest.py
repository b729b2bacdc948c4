"""A tiny release in real embedded stores, and an application that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.api.app import build_app
from online.api.runtime import Runtime
from online.pipeline.policy import Policy
from online.pipeline.release_view import ReleaseView, view_of
from online.stores import embedded_redis
from online.stores.open import open_stores
from online.stores.ports import Stores
from tests.factories import make_release, make_scorer_release, make_settings
from tests.predict_release import make_predict_release, publish_predictions


@dataclass
class Chain:
    """A published release with everything that answers from it. `rows` is the scorer release that scores uploads."""

    settings: Settings
    release: Release
    stores: Stores
    view: ReleaseView
    policy: Policy
    app: Flask
    rows: Release

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()


def publish(stores: Stores, release: Release) -> None:
    """Every store, then the pointer, by the ports alone."""
    view = view_of(release)
    users = release.table("user_profiles", ["user_id"])["user_id"].to_pylist()
    profiles = [profile for user in users if (profile := view.tables.profile(user)) is not None]
    stores.users.write(release.scene, release.id, profiles)
    stores.items.load(release)
    stores.features.load(release)
    stores.scorer.load(release)
    stores.users.flip(release.scene, release.id, stores.users.live(release.scene, 5.0))


def publish_rows(stores: Stores, release: Release) -> Release:
    """A scorer release: its model, then the pointer of its scene."""
    stores.scorer.load(release)
    stores.users.flip(release.scene, release.id, stores.users.live(release.scene, 5.0))
    return release


def make_chain(folder: Path, own: Mapping[str, object] | None = None, **options: object) -> Iterator[Chain]:
    """Makes, publishes and serves a release; ends the embedded Redis afterwards.

    Args:
        own: settings of this chain. options: of `make_release`.
    """
    settings = make_settings(folder, **{"serve.admin_token": "secret", "serve.budget_ms": 5000.0, **(own or {})})
    release = make_release(folder, settings=settings, **options)  # type: ignore[arg-type]
    stores = open_stores(settings)
    try:
        publish(stores, release)
        rows = publish_rows(stores, make_scorer_release(folder))
        publish_predictions(stores, make_predict_release(folder))
        runtime = Runtime(settings)
        runtime.open(lambda _: stores)
        try:
            yield Chain(settings, release, stores, view_of(release), Policy.of(settings), build_app(runtime), rows)
        finally:
            runtime.close()
    finally:
        embedded_redis.stop(Workspace(settings).online)


@pytest.fixture(scope="session", params=["int", "string"])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A served release, once with integer ids and once with strings."""
    yield from make_chain(tmp_path_factory.mktemp("chain"), ids=request.param, users=40, items=90)


@pytest.fixture(scope="session")
def int_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A served release with integer ids."""
    yield from make_chain(tmp_path_factory.mktemp("chain"), ids="int", users=40, items=90)


Publisher = Callable[[Stores, Release], None]
