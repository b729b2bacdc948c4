"""Whether the stores hold a release whole, found out by reading and scoring like a server does."""

from __future__ import annotations

import numpy as np

from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from offline_to_online.profiles import differing_field, profiles
from offline_to_online.rank.offline_reference import OfflineReference
from online.pipeline.recall import taste_of
from online.stores.open import open_stores
from online.stores.ports import Filters, Stores, VectorQuery

T = 10.0  # seconds


def live(settings: Settings) -> str | None:
    """What is live, as a server learns it."""
    stores = open_stores(settings)
    try:
        return stores.users.live(settings.scene, T)
    finally:
        stores.close()


def serves(settings: Settings, release: Release) -> bool:
    """Profiles, search, features and scores of a few users are those of the release, through freshly opened stores."""
    stores = open_stores(settings)
    try:
        reference = OfflineReference(release)
        return all(right(stores, release, reference, row) for row in range(0, len(reference.user_ids), 13))
    finally:
        stores.close()


def right(stores: Stores, release: Release, reference: OfflineReference, row: int) -> bool:
    user, candidates = reference.user_ids[row], reference.item_ids[:30]
    (expected,) = profiles(release, np.array([row]))
    profile = stores.users.read(release.scene, release.id, user, T).profile
    if profile is None or differing_field(expected, profile):
        return False
    (hits,) = stores.items.search(release.id, [VectorQuery(profile.vector, 9)], profile.history, Filters(), T)
    exact = reference.arrays.vector_scores(taste_of(profile))[hits.rows]
    inputs = reference.inputs(user, candidates, reference.last_timestamp(user) + 1)
    stored = {
        **stores.features.user(release.id, user, T).columns,
        **stores.features.items(release.id, candidates).columns,
    }
    same = all(np.array_equal(column, inputs[name]) for name, column in stored.items())
    scores = stores.scorer.score(release.id, {**inputs, **stored}, T)
    return same and len(hits.rows) == 9 and np.allclose(hits.scores, exact, atol=1e-5) and len(scores["score"]) == 30
