"""Feast's HTTP feature server on what publishing wrote: a release's own services, and the stable ones that follow the live one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from offline_to_online.publish import publish, rollback
from offline_to_online.rank import feature_server
from offline_to_online.rank.feature_server import ask, verify_feature_server
from online.stores import embedded_redis
from tests.factories import make_release, make_settings
from tests.servers import FeastServer
from tests.servers.process import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = make_settings(tmp_path_factory.mktemp("feature-server"))
    yield made
    embedded_redis.stop(Workspace(made).online)


@pytest.fixture(scope="module")
def releases(settings: Settings) -> list[Release]:
    """Two releases of different content; the first one is published."""
    store = Path(settings.data.store).parent
    made = [make_release(store, seed=seed, settings=settings) for seed in (1, 2)]
    publish(settings, made[0].id)
    return made


@pytest.fixture(scope="module")
def server(
    settings: Settings, releases: list[Release], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FeastServer]:
    with FeastServer(tmp_path_factory.mktemp("feast"), Workspace(settings).online / "feast") as running:
        yield running


def years(release: Release, items: list[int]) -> list[Any]:
    table = release.table("item_features")
    return [table["year"][pc.index(table["item_id"], item).as_py()].as_py() for item in items]


def test_publishing_checks_what_the_server_answers_and_the_stable_names_follow(
    settings: Settings, releases: list[Release], server: FeastServer
) -> None:
    served = settings.with_values(**{"stores.feature_server": server.url})
    both = [set(release.table("item_features")["item_id"].to_pylist()) for release in releases]
    items = sorted(both[0] & both[1])[:3]
    for work, live in ((publish, releases[1]), (publish, releases[0]), (rollback, releases[1])):
        result = work(served, live.id)
        if work is publish:
            assert result["stores"]["feature_server"] == {"http_users": 40, "http_items": 50, "stable_names": True}
        else:
            verify_feature_server(live, server.url, stable=True)
        answer = ask(server.url, "ml_item", {"itemid": items})
        assert answer["itemid"] == items
        assert answer["year"] == years(live, items)
    for release in releases:
        assert verify_feature_server(release, server.url) == {"http_users": 40, "http_items": 50}


def test_other_values_than_the_releases_are_told(
    releases: list[Release], server: FeastServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_server, "KNOWN_WITHIN_S", 0.0)

    def one_year_off(url: str, service: str, *rest: Any) -> dict[str, list[Any]]:
        answer = ask(url, service, *rest)
        return {**answer, "year": [year + 1 for year in answer["year"]]} if "year" in answer else answer

    monkeypatch.setattr(feature_server, "ask", one_year_off)
    with pytest.raises(StoreError, match="year of item .* is not what was written"):
        verify_feature_server(releases[0], server.url)


def test_a_server_that_is_not_there_is_named(releases: list[Release], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_server, "KNOWN_WITHIN_S", 0.0)
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailable, match=f"feature server {url}"):
        verify_feature_server(releases[0], url)
