"""One running backend per port and adapter for the whole session, and releases for them to hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.release import Release
from online.stores.open import open_features, open_items, open_scorer, open_users
from online.stores.ports import FeatureStore, ItemIndex, Scorer, UserStore
from online.stores.vocabulary_store import VocabularyStore
from tests.contract.backends import BACKENDS, Backend
from tests.factories import make_release, make_settings
from tests.servers import Unavailable

PORTS = {
    "users": "user_store",
    "vocabularies": "user_store",
    "items": "item_index",
    "features": "feature_store",
    "scorer": "scorer",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a port's fixture runs once per adapter; a file that is about one adapter names it as `BACKEND`.

    pytest runs the tests of a backend one after another, whatever their files, so each server is started once.
    """
    if own := getattr(metafunc.module, "BACKEND", None):
        if "backend" in metafunc.fixturenames:
            metafunc.parametrize("backend", [own], ids=[own[1]], indirect=True, scope="session")
        return
    for fixture, port in PORTS.items():
        if {fixture, "backend"} <= set(metafunc.fixturenames):  # a test file's own `scorer` needs no backend
            chosen = [(port, name) for name in BACKENDS[port]]
            metafunc.parametrize("backend", chosen, ids=[*BACKENDS[port]], indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The backend of this run, started once."""
    port, name = request.param
    settings = make_settings(tmp_path_factory.mktemp(f"{port}-{name}"))
    try:
        with BACKENDS[port][name](settings) as running:
            yield running
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def users(backend: Backend) -> Iterator[UserStore]:
    yield from closing(open_users(backend.settings))


@pytest.fixture(scope="session")
def vocabularies(backend: Backend) -> Iterator[VocabularyStore]:
    for users in closing(open_users(backend.settings)):
        yield users.vocabularies


@pytest.fixture(scope="session")
def items(backend: Backend) -> Iterator[ItemIndex]:
    yield from closing(open_items(backend.settings))


@pytest.fixture(scope="session")
def features(backend: Backend) -> Iterator[FeatureStore]:
    yield from closing(open_features(backend.settings))


@pytest.fixture(scope="session")
def scorer(backend: Backend) -> Iterator[Scorer]:
    yield from closing(open_scorer(backend.settings))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    """Two releases of the same users and items with different content, and one whose ids are strings."""
    folder: Path = tmp_path_factory.mktemp("releases")
    return [make_release(folder, seed=0), make_release(folder, seed=1), make_release(folder, ids="string", seed=2)]


def closing(store: Any) -> Iterator[Any]:
    """Closes the store at the end."""
    yield store
    store.close()
