"""Publishes a release: every store written and verified beside the live release, then one flip.

    publish.py [--release ID]              publish (default: the newest release)
    publish.py --dry-run                   show the plan and change nothing
    publish.py --rollback [--release ID]   make the release before live again, or a named one that the stores still hold

The plan is computed first and applied step by step. Steps that are done are noted in a journal: a publisher that was killed is
simply run again, checks what it had written and goes on. Until the flip the live release is not touched; after it come only
the stable names and the removal of old releases (`stores.keep_releases` stay in the stores, and of the daily job's releases
`incremental.keep_releases` on disk).
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from data_exchange_center.errors import ReleaseError, StoreError
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.journal import Journal
from offline_to_online.lock import publish_lock
from offline_to_online.parts import Part, open_for, parts_of
from offline_to_online.rank.s1_feature_to_feast import verify_over_http
from offline_to_online.retention import prune, prune_disk, releases_to_drop
from online.stores.open import open_users
from online.stores.ports import Flip, Stores

log = logging.getLogger("marquee")

POINTER_TIMEOUT_S = 10.0


def publish(settings: Settings, release_id: str = "", *, dry_run: bool = False) -> dict[str, Any]:
    """Makes a release live.

    Args:
        release_id: the newest release of the scene when empty.
        dry_run: compute and return the plan, change nothing.

    Returns:
        release, previous (what was live before it), flipped, seconds, stores{users, items, features, scorer; a scorer release
        has the last alone; feature_server, when the settings name one}, dropped (from the stores), removed (from disk); with
        `dry_run` also `plan`.

    Raises:
        ReleaseError: no such release, or its checksums do not hold.
        StoreError: a store could not be written, or read back something else; the live release is still the old one.
        LockHeld: another publisher is at work, or flipped in between.
    """
    started = time.perf_counter()
    release = find_release(settings, release_id)
    parts = parts_of(release)
    with publish_lock(settings, f"publish {release.id}"), closing(open_for(settings, parts)) as stores:
        live = stores.users.live(release.scene, POINTER_TIMEOUT_S)
        journal = Journal(settings, release)
        served = bool(settings.stores.feature_server) and release.kind == "chain"
        plan = planned(release, live, parts, journal, releases_to_drop(settings, stores, parts, release.id), served)
        for number, line in enumerate(plan, start=1):
            log.info("  %d. %s", number, line)
        if dry_run:
            return {"release": release.id, "previous": live, "flipped": False, "plan": plan, "stores": {}}
        results = {part.name: apply(part, release, stores, journal) for part in parts}
        if settings.features.stale(results.get("features", {}).get("as_of", time.time()), time.time()):
            log.warning("%s: its features are older than features.max_age_hours allows", release.id)
        if served:
            results["feature_server"] = verify_over_http(release, settings)
        stores.users.flip(release.scene, release.id, live)
        previous = previous_release(stores.users.history(release.scene), release.id) or None
        follow(release, stores)
        if served:
            results["feature_server"]["stable_names"] = stable_names_follow(release, settings)
        dropped = prune(settings, stores, parts)
        removed = prune_disk(settings, stores, parts, release.id)
        journal.close()
    return {
        "release": release.id,
        "previous": previous,
        "flipped": live != release.id,
        "seconds": round(time.perf_counter() - started, 3),
        "stores": results,
        "dropped": dropped,
        "removed": removed,
    }


def rollback(settings: Settings, release_id: str = "", *, dry_run: bool = False) -> dict[str, Any]:
    """Makes the release that was live before the live one live again, or a named one; nothing is written but the pointer.

    Raises:
        ReleaseError: there is none, or the stores do not hold it whole any more.
    """
    started = time.perf_counter()
    with publish_lock(settings, f"rollback {release_id}".strip()):
        live, target = rollback_target(settings, release_id)
        release = find_release(settings, target)
        if release.scene != settings.scene:
            raise ReleaseError(
                f"{target} is a release of scene {release.scene}, and {settings.scene} is to be rolled back; "
                f"name a release of it, or the other scene's dataset (DATASET=)"
            )
        parts = parts_of(release)
        plan = [
            f"check that every store still holds {target}",
            f"flip from {live} to {target}",
            "stable names follow",
        ]
        if dry_run:
            return {"release": target, "previous": live, "flipped": False, "plan": plan, "stores": {}}
        with closing(open_for(settings, parts)) as stores:
            try:
                results = {part.name: part.verify(release, stores) for part in parts}
            except StoreError as error:
                raise ReleaseError(f"{target} cannot be rolled back to: {error.message}; publish it instead") from error
            stores.users.flip(settings.scene, target, live)
            follow(release, stores)
    return {
        "release": target,
        "previous": live,
        "flipped": live != target,
        "seconds": round(time.perf_counter() - started, 3),
        "stores": results,
    }


def rollback_target(settings: Settings, release_id: str) -> tuple[str | None, str]:
    """What is live, and the release to go back to: the named one, or the one that was live before.

    Raises:
        ReleaseError: none was.
    """
    with closing(open_users(settings)) as users:
        live = users.live(settings.scene, POINTER_TIMEOUT_S)
        target = release_id or previous_release(users.history(settings.scene), live)
    if not target:
        raise ReleaseError(f"scene {settings.scene}: {live or 'nothing'} is live and no other release was before it")
    return live, target


def planned(
    release: Release, live: str | None, parts: Sequence[Part], journal: Journal, drop: list[str], served: bool
) -> list[str]:
    """The plan in words; `served`: an HTTP feature server is asked too."""
    lines = []
    for part in parts:
        done = part.name in journal.done
        lines.append(f"{part.name}: {'verify what was written before' if done else 'load and verify'}")
    lines += ["feature_server: compare what it answers"] if served else []
    lines.append(
        f"flip from {live} to {release.id}" if live != release.id else f"{release.id} is live already: no flip"
    )
    lines.append("stable names follow")
    lines += [f"drop {name}" for name in drop]
    return lines


def apply(part: Part, release: Release, stores: Stores, journal: Journal) -> dict[str, Any]:
    """Brings one store to where the plan wants it: what was done before is verified, and loaded anew when it does not hold."""
    if part.name in journal.done:
        try:
            return {**journal.done[part.name]["result"], **part.verify(release, stores), "resumed": True}
        except StoreError as error:
            log.warning("%s: was written before, but %s; loading it again", part.name, error.message)
    result = {**part.load(release, stores), **part.verify(release, stores)}
    journal.note(part.name, result)
    log.info("  %s: %s", part.name, result)
    return result


def follow(release: Release, stores: Stores) -> None:
    """What people and other programs use by name follows the pointer."""
    for part in parts_of(release):
        part.promote(release, stores)


def stable_names_follow(release: Release, settings: Settings) -> bool:
    """Whether the feature server answers from this release under the stable names. It is live by now, so that this only warns."""
    try:
        verify_over_http(release, settings, stable=True)
    except StoreError as error:
        log.warning("%s is live, but the stable names do not follow: %s", release.id, error.message)
        return False
    return True


def previous_release(history: list[Flip], live: str | None) -> str:
    """The release that was live last before the live one; "" when there was none."""
    others = [flip.release for flip in history if flip.release != live]
    return others[-1] if others else ""


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument(
        "--release", default="", help="a release's id (default: the newest; with --rollback the one before)"
    )
    arguments.add_argument("--rollback", action="store_true", help="flip back instead of publishing")
    arguments.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        work = rollback if parsed.rollback else publish
        return work(settings, parsed.release, dry_run=parsed.dry_run)

    run_step("publish", arguments, step, argv)


if __name__ == "__main__":
    main()
