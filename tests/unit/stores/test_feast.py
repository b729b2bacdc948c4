"""What people and other programs see of Feast, and how the item snapshot is refreshed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_exchange_center.errors import StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.workspace import Workspace
from online.stores import feast_features
from online.stores.feast_embedded import open_features
from online.stores.feast_features import FeastFeatures
from online.stores.feast_import import FeatureStore as Feast
from tests.factories import make_release, make_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feast")


@pytest.fixture(scope="module")
def releases(folder: Path) -> list[Release]:
    return [make_release(folder, seed=0), make_release(folder, seed=1), make_release(folder, ids="string", seed=2)]


@pytest.fixture(scope="module")
def features(folder: Path, releases: list[Release]) -> Iterator[FeastFeatures]:
    opened = open_features(make_settings(folder), "embedded://")
    assert isinstance(opened, FeastFeatures)
    for release in releases:
        opened.load(release)
    yield opened
    opened.close()


def test_the_stable_services_follow_the_live_release(
    features: FeastFeatures, releases: list[Release], folder: Path
) -> None:
    """As somebody with nothing but Feast's SDK and the generated configuration file reads them."""
    repository = Workspace(make_settings(folder)).online / "feast"
    for release in (releases[0], releases[2], releases[1]):
        features.promote(release)
        reader = Feast(repo_path=str(repository))
        for kind, name in (("user", "gender"), ("item", "year")):
            table = release.table(f"{kind}_features")
            key, expected = table[f"{kind}_id"][0].as_py(), table[name][0].as_py()
            service = reader.get_feature_service(f"ml_{kind}")
            answer = reader.get_online_features(features=service, entity_rows=[{f"{kind}id": key}]).to_dict()
            assert answer[name] == [expected]
            assert answer[f"{kind}id"] == [key]


def test_every_feature_of_the_spec_is_in_the_services(
    features: FeastFeatures, releases: list[Release], folder: Path
) -> None:
    reader = Feast(repo_path=str(Workspace(make_settings(folder)).online / "feast"))
    spec, name = releases[0].spec(), releases[0].id.replace("-", "_")
    for kind, declared in (("user", spec.user_features), ("item", spec.item_features)):
        (projection,) = reader.get_feature_service(f"ml_{kind}_{name}").feature_view_projections
        listed = {field.name for field in projection.features}
        assert listed == {feature.name for feature in declared} | {"feature_timestamp"}


def test_an_old_snapshot_is_replaced_in_the_background(
    features: FeastFeatures, releases: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = releases[0]
    item = release.table("items")["item_id"][0].as_py()
    features.items(release.id, [item])
    first = features._items.get(release.id).snapshot
    monkeypatch.setattr(feast_features, "SNAPSHOT_SECONDS", 0.0)
    deadline = time.monotonic() + 10
    while features._items.get(release.id).snapshot is first and time.monotonic() < deadline:
        assert features.items(release.id, [item]).present.all()
        time.sleep(0.01)
    assert features._items.get(release.id).snapshot is not first


def test_a_snapshot_that_cannot_be_refreshed_stays(
    features: FeastFeatures, releases: list[Release], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = releases[0]
    item = release.table("items")["item_id"][0].as_py()
    features.items(release.id, [item])
    monkeypatch.setattr(feast_features, "SNAPSHOT_SECONDS", 0.0)

    def away(release: str) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(features, "_loaded", away)
    deadline = time.monotonic() + 10
    while "and stay: the store is away" not in caplog.text and time.monotonic() < deadline:
        assert features.items(release.id, [item]).present.all()
        time.sleep(0.01)
    assert features.items(release.id, [item]).present.all()
    assert "and stay: the store is away" in caplog.text


def test_a_store_that_was_opened_before_the_release_was_loaded_finds_it(folder: Path, releases: list[Release]) -> None:
    server = open_features(make_settings(folder), "embedded://")
    server.load(releases[0])
    user = releases[0].table("users")["user_id"][0].as_py()
    assert server.user(releases[0].id, user, 5).present.all()
    later = make_release(folder, seed=7)
    publisher = open_features(make_settings(folder), "embedded://")
    with pytest.raises(StoreUnavailable, match="publish it"):
        server.user(later.id, user, 5)
    publisher.load(later)
    assert server.user(later.id, later.table("users")["user_id"][0].as_py(), 5).present.all()


def test_nothing_loaded_is_no_error(tmp_path: Path) -> None:
    empty = open_features(make_settings(tmp_path), "embedded://")
    assert empty.releases() == []
    empty.drop("never-there")
    with pytest.raises(StoreUnavailable, match="publish it"):
        empty.items("never-there", [1])
