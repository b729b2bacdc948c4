"""Step 1 of the sync: every user's profile (terms, vector, history) into the user store, and read back.

Works on whichever store `stores.user_store` names. Profiles lie under the release's id, beside those of the live release;
writing them again changes nothing, and a writer that was killed goes on where it was. Profiles of a release that never goes live
expire by themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from data_exchange_center.errors import StoreError
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.lock import publish_lock
from offline_to_online.profiles import differing_field, profiles, sample_rows
from online.stores.open import open_users
from online.stores.ports import UserStore
from online.stores.profile_codec import encode_profile

log = logging.getLogger("marquee")

SOURCES = ("tables/users.parquet", "tables/user_profiles.parquet", "recall/user_vectors.npy")
SAMPLE = 1000  # users read back
READ_TIMEOUT_S = 10.0


def load_users(release: Release, users: UserStore) -> dict[str, Any]:
    """Writes every user of the release, and goes on where a writer that was killed had come to.

    Returns:
        users: all of them; resumed_at: how many were there already; users_per_second; bytes_per_user, as encoded;
        memory_bytes_per_user, as the store counts it.
    """
    total = release.table("users", []).num_rows
    content = content_of(release)
    start = min(users.written(release.scene, release.id, content), total)
    if start:
        log.info("%d of %d users were written before", start, total)
    left = profiles(release, np.arange(start, total) if start else None)
    started = time.perf_counter()
    shown = tqdm(left, "users", total, initial=start, unit="user", leave=False)
    written = users.write(release.scene, release.id, shown, content=content, start=start)
    seconds = time.perf_counter() - started
    weighed = [len(encode_profile(profile)) for profile in profiles(release, sample_rows(total, SAMPLE, 0))]
    return {
        "users": start + written,
        "resumed_at": start,
        "users_per_second": round(written / max(seconds, 1e-9)),
        "bytes_per_user": round(sum(weighed) / max(len(weighed), 1)),
        "memory_bytes_per_user": round(users.memory(release.scene, release.id) / max(total, 1)),
    }


def content_of(release: Release) -> str:
    """What tells this release's profiles from any others: the checksums of the files that they are made of."""
    listed = release.manifest["files"]
    together = "".join(str(listed[name]["sha256"]) for name in SOURCES)
    return hashlib.sha256(together.encode()).hexdigest()


def verify_users(release: Release, users: UserStore, sample: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """Compares the number of users, and a random sample of profiles in every bit; returns how many were compared.

    Raises:
        StoreError: a profile is missing or differs; the message names the user and the field.
    """
    total = release.table("users", []).num_rows
    held = users.count(release.scene, release.id)
    if held != total:
        raise StoreError(f"user store: {held} users of release {release.id}, {total} expected")
    rows = sample_rows(total, sample, seed)
    for expected in profiles(release, rows):
        found = users.read(release.scene, release.id, expected.user_id, READ_TIMEOUT_S).profile
        field = differing_field(expected, found)
        if field:
            raise StoreError(
                f"user store: {field} of user {expected.user_id!r} in release {release.id} is not what was written",
                field=field,
            )
    return {"verified": len(rows)}


def sync_users(settings: Settings, release_id: str = "") -> dict[str, Any]:
    """Loads and verifies one release (the newest one by default)."""
    release = find_release(settings, release_id)
    with publish_lock(settings, f"s1_user_to_redis {release.id}"):
        users = open_users(settings)
        try:
            return {"release": release.id, **load_users(release, users), **verify_users(release, users)}
        finally:
            users.close()


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.add_argument("--release", default="", help="a release's id (default: the newest)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return sync_users(settings, parsed.release)

    run_step("s1_user_to_redis", arguments, step, argv)


if __name__ == "__main__":
    main()
