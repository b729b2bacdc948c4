"""Releases change under load, and no answer mixes two of them; the short form of benchmarks/atomic_release.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.atomic_release import PARTS, atomic_release
from benchmarks.support.marked_release import make_marked_release, origins
from data_exchange_center.workspace import Workspace
from offline_to_online.publish import publish
from online.api.recommend import content_of
from online.pipeline.context import RequestContext
from online.pipeline.query import Query
from online.pipeline.recommend import Policy, recommend
from online.pipeline.release_view import view_of
from online.stores import embedded_redis
from online.stores.open import open_stores
from online.stores.ports import Stores
from tests.factories import make_settings
from tests.servers import Unavailable


@pytest.mark.e2e
@pytest.mark.parametrize("real", [False, True], ids=["embedded", "servers"])
def test_no_answer_mixes_releases_while_they_change(real: bool) -> None:
    flips = 2 if real else 6  # a publish into real servers takes seconds
    try:
        result = atomic_release(flips, releases=3, clients=4, real=real)
    except Unavailable as error:
        pytest.skip(str(error))
    assert (result["errors"], result["mixed"]) == (0, 0), result["examples"]
    assert result["flips"] == flips
    assert result["releases_answered_from"] > 1


class Elsewhere:
    """A store that answers every question from another release than the one asked for."""

    def __init__(self, store: Any, asked: str, given: str) -> None:
        self._store, self._asked, self._given = store, asked, given

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any) -> Any:
            return method(
                *(
                    self._given if isinstance(argument, str) and argument == self._asked else argument
                    for argument in arguments
                )
            )

        return call


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two marked releases in embedded stores: (settings, stores, the releases)."""
    settings = make_settings(tmp_path_factory.mktemp("marked"))
    releases = [make_marked_release(settings, number) for number in range(2)]
    for release in releases:
        publish(settings, release.id)
    stores = open_stores(settings)
    yield settings, stores, releases
    stores.close()
    embedded_redis.stop(Workspace(settings).online)


def answer_with(settings: Any, stores: Stores, release: Any) -> dict[str, Any]:
    context = RequestContext(view_of(release), "proof", 30.0)
    return content_of(context, recommend(context, stores, Query(3, size=10, explain=True), Policy.of(settings)))


def test_every_part_of_an_answer_tells_its_release(published: Any) -> None:
    settings, stores, releases = published
    for number, release in enumerate(releases):
        found = origins(answer_with(settings, stores, release))
        assert found.keys() >= PARTS
        assert set().union(*found.values()) == {number}


@pytest.mark.parametrize("port", ["users", "items", "features", "scorer"])
def test_a_store_that_answers_from_another_release_shows(published: Any, port: str) -> None:
    """The proof can fail: a mix is seen whichever store it comes from."""
    settings, stores, (one, other) = published
    mixed = replace(stores, **{port: Elsewhere(getattr(stores, port), one.id, other.id)})
    found = origins(answer_with(settings, mixed, one))
    assert set().union(*found.values()) != {0}


def test_the_release_folder_of_a_proof_is_its_own(tmp_path: Path) -> None:
    """Marked releases go where the settings say, so a proof never touches the releases of a checkout."""
    release = make_marked_release(make_settings(tmp_path), 0)
    assert release.path.is_relative_to(tmp_path)
