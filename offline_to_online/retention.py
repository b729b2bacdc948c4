"""Which releases the stores and the disk keep, and the removal of the others."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from itertools import pairwise

from data_exchange_center.release import MANIFEST, list_releases
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_json
from offline_to_online.parts import Part
from online.stores.ports import Flip, Stores

log = logging.getLogger("marquee")

REMOVED = ".removed"

GRACE_S = 60.0
"""Requests in flight may still name a release that was live this recently, and workers learn of a flip a moment late."""


def kept_releases(history: list[Flip], keep: int, now: float, grace: float) -> list[str]:
    """Releases that stay: the live one, the `keep` - 1 that were live last before it, and whatever was live within the grace.

    Args:
        history: every flip in its order. now: unix seconds. grace: seconds.
    """
    latest = list(dict.fromkeys(flip.release for flip in reversed(history)))  # each once, most recently live first
    recent = {flip.release for flip, following in pairwise(history) if now - following.at < grace}
    return [release for place, release in enumerate(latest) if place < keep or release in recent]


def held_releases(settings: Settings, stores: Stores, parts: Sequence[Part]) -> list[str]:
    """Every release of the scene of which a store of these parts holds something, whole or not.

    Some stores are shared by all scenes: of what they hold, the scene's are those that it has on disk or had live.
    """
    own = {*list_releases(settings), *(flip.release for flip in stores.users.history(settings.scene))}
    held = [(set(part.held(stores, settings.scene)), part.shared) for part in parts]
    return sorted({release for found, shared in held for release in (found & own if shared else found)})


def releases_to_drop(settings: Settings, stores: Stores, parts: Sequence[Part], publishing: str = "") -> list[str]:
    """What `prune` would remove once `publishing` is live."""
    history = stores.users.history(settings.scene)
    now = time.time()
    if publishing and (not history or history[-1].release != publishing):
        history = [*history, Flip(publishing, now)]
    kept = {*kept_releases(history, settings.stores.keep_releases, now, GRACE_S), publishing}
    return [release for release in held_releases(settings, stores, parts) if release not in kept]


def prune(settings: Settings, stores: Stores, parts: Sequence[Part]) -> list[str]:
    """Removes from every store what is not kept, half-written releases of publishers that died included; returns their ids."""
    dropped = releases_to_drop(settings, stores, parts)
    for release in dropped:
        log.info("  dropping %s", release)
        for part in parts:
            part.drop(stores, settings.scene, release)
    return dropped


def stale_on_disk(settings: Settings, stores: Stores, parts: Sequence[Part], live: str) -> list[str]:
    """Releases of the daily job that nobody needs on disk any more, oldest first.

    The `incremental.keep_releases` newest stay, and so does every release that the stores keep or hold (the live one and those that
    one can roll back to among them), that is newer than `live` (it may be about to be published), or that was not made by the daily
    job: a person made it and removes it.
    """
    keep, known = settings.incremental.keep_releases, list_releases(settings)
    if not keep or live not in known:
        return []
    folder = Workspace(settings).releases
    made = [release for release in known if "incremental" in read_json(folder / release / MANIFEST)]
    older = made[: max(len(made) - keep, 0)]
    if not older:  # the common case: nothing to ask the stores for
        return []
    needed = {
        *kept_releases(stores.users.history(settings.scene), settings.stores.keep_releases, time.time(), GRACE_S),
        *held_releases(settings, stores, parts),
        *known[known.index(live) :],
    }
    return [release for release in older if release not in needed]


def prune_disk(settings: Settings, stores: Stores, parts: Sequence[Part], live: str) -> list[str]:
    """Removes those releases: out of sight by one renaming, then from disk; returns their ids."""
    folder = Workspace(settings).releases
    for left in folder.glob(f".*{REMOVED}"):  # by a publisher that was killed
        shutil.rmtree(left, ignore_errors=True)
    stale = stale_on_disk(settings, stores, parts, live)
    for release in stale:
        log.info("  removing %s from disk", release)
        hidden = folder / f".{release}{REMOVED}"
        (folder / release).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return stale
