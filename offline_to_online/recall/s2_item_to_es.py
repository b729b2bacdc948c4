"""Step 2 of the sync: the item index of a release, and searches compared with the exact answer.

Works on whichever index `stores.item_index` names: Elasticsearch, or the one in process.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from data_exchange_center.errors import StoreError
from data_exchange_center.recall_scores import RecallArrays, top_rows
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.lock import publish_lock
from offline_to_online.profiles import profiles, sample_rows
from online.pipeline.recall import taste_of
from online.stores.open import open_items
from online.stores.ports import Filters, ItemIndex, TermQuery, UserProfile, VectorQuery

SAMPLE = 50  # users whose searches are compared
DEPTH = 200  # hits of each search
LEAST_OVERLAP = 0.99
RELATIVE, ABSOLUTE = 1e-4, 1e-4  # tolerance of a hit's score: an index may keep or add up scores in its own way
READ_TIMEOUT_S = 30.0


def load_items(release: Release, items: ItemIndex) -> dict[str, Any]:
    """Builds the index; returns `items` and `seconds`."""
    started = time.perf_counter()
    return {"items": items.load(release), "load_seconds": round(time.perf_counter() - started, 3)}


def verify_items(release: Release, items: ItemIndex, sample: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """Compares counts, and vector and term searches of real users, exclusions included, with the exact answer.

    Returns:
        verified: users compared; overlaps: channel -> mean share of the exact top `DEPTH` that the index finds; overlap: the
        lowest of them; worst_overlap: of any one search.

    Raises:
        StoreError: a count differs, a channel's mean overlap is below `LEAST_OVERLAP`, a score is wrong, or a hit was excluded.
    """
    arrays = RecallArrays.open(release)
    held = items.count(release.id)
    if held != arrays.item_count:
        raise StoreError(f"item index: {held} items of release {release.id}, {arrays.item_count} expected")
    found: dict[str, list[float]] = {}
    rows = sample_rows(release.table("users", []).num_rows, sample, seed)
    for profile in profiles(release, rows):
        for channel, overlap in compared(release.id, profile, arrays, items).items():
            found.setdefault(channel, []).append(overlap)
    means = {channel: float(np.mean(overlaps)) for channel, overlaps in found.items()}
    for channel, overlap in means.items():
        if overlap < LEAST_OVERLAP:
            raise StoreError(
                f"item index: {channel} search in release {release.id} finds {overlap:.3f} of the exact top {DEPTH}, "
                f"at least {LEAST_OVERLAP} is expected",
                field=channel,
            )
    return {
        "verified": len(rows),
        "overlaps": {channel: round(overlap, 4) for channel, overlap in means.items()},
        "overlap": round(min(means.values(), default=1.0), 4),
        "worst_overlap": round(min((min(overlaps) for overlaps in found.values()), default=1.0), 4),
    }


def compared(release: str, profile: UserProfile, arrays: RecallArrays, items: ItemIndex) -> dict[str, float]:
    """Channel -> overlap of one user's search with the exact answer, for the channels that have one."""
    taste = taste_of(profile)
    exact = {"vector": arrays.vector_scores(taste), "term": arrays.term_scores(taste)}
    queries: list[VectorQuery | TermQuery] = [VectorQuery(arrays.vector_of(taste), DEPTH)]
    queries.append(TermQuery(profile.terms, profile.term_weights, DEPTH))
    history = np.unique(profile.history)
    overlaps = {}
    for hits in items.search(release, queries, history, Filters(), READ_TIMEOUT_S):
        scores = exact[hits.channel]
        eligible = np.ones(len(scores), bool)
        eligible[history] = False
        if hits.channel == "term":
            eligible &= scores > 0
        wanted = top_rows(scores, eligible, DEPTH)
        if not eligible[hits.rows].all():
            wrong = hits.rows[~eligible[hits.rows]][0]
            raise StoreError(
                f"item index: {hits.channel} search of user {profile.user_id!r} found row {wrong}, which is excluded"
            )
        if not np.allclose(hits.scores, scores[hits.rows], RELATIVE, ABSOLUTE):
            worst = int(np.argmax(np.abs(hits.scores - scores[hits.rows])))
            raise StoreError(
                f"item index: {hits.channel} score of row {hits.rows[worst]} for user {profile.user_id!r} is "
                f"{hits.scores[worst]:.6g}, not {scores[hits.rows[worst]]:.6g}"
            )
        if len(wanted):
            # an item that ties with the last one wanted is as good as that one
            good = scores[hits.rows] >= scores[wanted[-1]] - ABSOLUTE
            overlaps[hits.channel] = min(int(good.sum()), len(wanted)) / len(wanted)
    return overlaps


def sync_items(settings: Settings, release_id: str = "") -> dict[str, Any]:
    """Loads and verifies one release (the newest one by default)."""
    release = find_release(settings, release_id)
    with publish_lock(settings, f"s2_item_to_es {release.id}"):
        items = open_items(settings)
        try:
            return {"release": release.id, **load_items(release, items), **verify_items(release, items)}
        finally:
            items.close()


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.add_argument("--release", default="", help="a release's id (default: the newest)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return sync_items(settings, parsed.release)

    run_step("s2_item_to_es", arguments, step, argv)


if __name__ == "__main__":
    main()
