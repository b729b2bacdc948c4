"""Step 1 of the sync: every user's profile (terms, vector, history) into the user store, and read back.

Works on whichever store `stores.user_store` names. Profiles lie under the release's id, beside those of the live release;
writing them again changes nothing.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

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

SAMPLE = 1000  # users read back
READ_TIMEOUT_S = 10.0


def load_users(release: Release, users: UserStore) -> dict[str, Any]:
    """Writes every user of the release; returns `users`, `users_per_second` and `bytes_per_user`."""
    total = release.table("users", []).num_rows
    started = time.perf_counter()
    written = users.write(release.scene, release.id, tqdm(profiles(release), "users", total, unit="user", leave=False))
    seconds = time.perf_counter() - started
    weighed = [len(encode_profile(profile)) for profile in profiles(release, sample_rows(total, SAMPLE, 0))]
    return {
        "users": written,
        "users_per_second": round(written / max(seconds, 1e-9)),
        "bytes_per_user": round(sum(weighed) / max(len(weighed), 1)),
    }


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
