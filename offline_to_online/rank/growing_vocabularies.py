"""A release's growing vocabularies into the online ones, and their comparison; what a publish does with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_exchange_center.errors import StoreError
from data_exchange_center.feature_spec import Feature
from data_exchange_center.ready_rows import growing
from data_exchange_center.release import Release
from data_exchange_center.vocabulary import Token, Vocabulary
from online.stores.vocabulary_store import VocabularyStore


def growing_features(release: Release) -> list[Feature]:
    """Features that own a vocabulary which grows."""
    return [feature for feature in release.spec().inputs if growing(feature)]


def offline_vocabulary(release: Release, feature: str) -> Vocabulary:
    """What the release says of a feature's tokens."""
    return Vocabulary.load(release.file(f"vocab_map/{feature}.json").parent, feature)


def load_vocabularies(release: Release, store: VocabularyStore) -> dict[str, Any]:
    """Brings the release's growing vocabularies online; returns `features` and how many tokens were `added`."""
    growing = growing_features(release)
    added = sum(store.seed(release.scene, offline_vocabulary(release, feature.name)) for feature in growing)
    return {"features": len(growing), "added": added}


def verify_vocabularies(release: Release, store: VocabularyStore) -> dict[str, Any]:
    """Compares every token of the release with what is online.

    Returns:
        verified: tokens compared.

    Raises:
        StoreError: a token has another id online, or none; it is named.
    """
    verified = 0
    for feature in growing_features(release):
        offline, online = offline_vocabulary(release, feature.name), store.export(release.scene, feature.name)
        for token, here, there in disagreements(offline, online):
            raise StoreError(
                f"scene {release.scene}, {feature.name}: token {token!r} has id {here} in release {release.id} "
                f"and {there} online",
                field=feature.name,
            )
        verified += len(offline.ids)
    return {"verified": verified}


def disagreements(offline: Vocabulary, online: Vocabulary) -> Iterator[tuple[Token, int, int | None]]:
    """Tokens whose ids differ: (token, its id offline, its id online or None)."""
    for token, number in offline.ids.items():
        if online.ids.get(token) != number:
            yield token, number, online.ids.get(token)
