"""A publisher that dies anywhere (kill -9) leaves the live release whole, and the next one finishes its work.

The publisher runs in a process of its own, in which one function of the product is replaced by one that ends the process at
that very place.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import islice
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest import mock

import pytest

from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from offline_to_online import parts
from offline_to_online.journal import read_journal
from offline_to_online.publish import publish
from offline_to_online.retention import held_releases
from online.stores.open import open_stores
from online.stores.ports import UserProfile
from tests.factories import make_release, make_settings
from tests.unit.sync.whole import live, serves

PUBLISH, PARTS = "offline_to_online.publish", "offline_to_online.parts"
REDIS = "online.stores.redis_users.RedisUsers"
FEAST = "online.stores.feast_features.FeastFeatures"

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([PUBLISH, "online.stores.feast_embedded", "online.stores.onnx_scorer"])  # imported once

# where the publisher dies: before, during or after the call of this function; and whether the new release is live by then
PLACES = {
    "half of the users written": ("during", f"{REDIS}.write", False),
    "users written, not verified": ("after", f"{PARTS}.load_users", False),
    "users verified, not noted": ("before", "offline_to_online.journal.Journal.note", False),
    "half of the item index": ("before", "online.stores.embedded_items.write_json", False),
    "items loaded": ("after", f"{PARTS}.load_items", False),
    "features registered, not materialized": ("before", "online.stores.feast_import.FeatureStore.materialize", False),
    "features loaded": ("after", f"{PARTS}.load_features", False),
    "model loaded": ("after", f"{PARTS}.load_model", False),
    "all verified, before the flip": ("before", f"{REDIS}.flip", False),
    "flipped, the copy not written": ("before", "online.stores.local_copy.write_json", True),
    "flipped, names not promoted": ("before", f"{PUBLISH}.follow", True),
    "an old release half dropped": ("before", f"{FEAST}.drop", True),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_publisher_killed_anywhere_leaves_the_live_release_whole(
    settings: Settings, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    when, target, flipped = PLACES[place]
    older, newer = (make_release(Workspace(settings).root.parent, seed=seed, settings=settings) for seed in range(2))
    if place == "an old release half dropped":
        settings = settings.with_values(**{"stores.keep_releases": 1})
        monkeypatch.setattr("offline_to_online.retention.GRACE_S", 0.0)
    publish(settings, older.id)
    publisher = FORKS.Process(
        target=dying_publisher,
        args=(str(Workspace(settings).root), settings.stores.keep_releases, newer.id, when, target),
    )
    publisher.start()
    publisher.join(60)
    assert publisher.exitcode == -signal.SIGKILL, "it ended without having come to the place"
    assert live(settings) == (newer.id if flipped else older.id)
    assert serves(settings, newer if flipped else older)
    assert (read_journal(settings) or {}).get("release") in (None, newer.id)

    result = publish(settings, newer.id)
    if place == "half of the users written":
        assert result["stores"]["users"]["resumed_at"] == 6
    assert (live(settings), result["flipped"]) == (newer.id, not flipped)
    assert serves(settings, newer)
    assert read_journal(settings) is None
    stores = open_stores(settings)
    assert stores.users.live_copy(settings.scene) == newer.id
    expected = {newer.id} if settings.stores.keep_releases == 1 else {newer.id, older.id}
    assert set(held_releases(settings, stores, parts.PARTS["chain"])) == expected
    stores.close()


def test_what_a_dead_publisher_left_of_a_release_goes_when_another_one_is_published(settings: Settings) -> None:
    releases = [make_release(Workspace(settings).root.parent, seed=seed, settings=settings) for seed in range(3)]
    publish(settings, releases[0].id)
    publisher = FORKS.Process(
        target=dying_publisher,
        args=(str(Workspace(settings).root), 2, releases[1].id, "after", f"{PARTS}.load_items"),
    )
    publisher.start()
    publisher.join(60)
    assert publish(settings, releases[2].id)["dropped"] == [releases[1].id]
    assert serves(settings, releases[0])
    assert serves(settings, releases[2])


def dying_publisher(store: str, keep: int, release: str, when: str, target: str) -> None:
    """Publishes in a process that ends itself, with SIGKILL, before, during or after the call of `target`."""
    settings = make_settings(Path(store).parent, **{"stores.keep_releases": keep})
    import online.stores.feast_embedded  # noqa: F401 - so that the target can be replaced before the stores are opened

    with (
        mock.patch("offline_to_online.retention.GRACE_S", 0.0),
        mock.patch("online.stores.redis_users.WRITE_BATCH", 2),
        mock.patch("online.stores.redis_users.WRITE_AHEAD", 0),
        deadly(when, target),
    ):
        publish(settings, release)


def half_of(profiles: Iterable[UserProfile]) -> Iterator[UserProfile]:
    """The first few, then the end of the process."""
    yield from islice(profiles, 7)
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(when: str, target: str) -> Any:
    """Replaces a function by one at which the process dies."""
    original: Callable[..., Any] = resolve_name(target)

    @wraps(original)
    def last_call(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            original(*arguments, **options)
        elif when == "during":
            store, scene, release, profiles = arguments
            original(store, scene, release, half_of(profiles), **options)
        os.kill(os.getpid(), signal.SIGKILL)

    return mock.patch(target, last_call)
