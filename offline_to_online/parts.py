"""What a release puts into the stores, by its kind: one part per store, from which publish, rollback and retention are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_exchange_center.release import Kind, Release
from data_exchange_center.settings import Settings
from offline_to_online.rank.growing_vocabularies import growing_features, load_vocabularies, verify_vocabularies
from offline_to_online.rank.s1_feature_to_feast import load_features, verify_features
from offline_to_online.rank.s2_model_to_triton import load_model, verify_model
from offline_to_online.recall.s1_user_to_redis import load_users, verify_users
from offline_to_online.recall.s2_item_to_es import load_items, verify_items
from online.stores.open import open_stores
from online.stores.ports import Stores


@dataclass(frozen=True)
class Part:
    """One store's part of a release.

    Attributes:
        name: in plans, journals and results.
        port: the setting in [stores] that chooses the store.
        load: puts it there, beside the live release. verify: reads it back.
        held: releases of which the store holds something, for a scene.
        drop: removes a release of a scene; one that is not there is no error.
        promote: makes the name follow that people and other programs use, where the store has one.
        shared: `held` tells the releases of all scenes, because the store does not know scenes.
    """

    name: str
    port: str
    load: Callable[[Release, Stores], dict[str, Any]]
    verify: Callable[[Release, Stores], dict[str, Any]]
    held: Callable[[Stores, str], Iterable[str]]
    drop: Callable[[Stores, str, str], None]
    promote: Callable[[Release, Stores], None] = lambda release, stores: None
    shared: bool = False


USERS = Part(
    "users",
    "user_store",
    load=lambda release, stores: load_users(release, stores.users),
    verify=lambda release, stores: verify_users(release, stores.users),
    held=lambda stores, scene: stores.users.releases(scene),
    drop=lambda stores, scene, release: stores.users.drop(scene, release),
)
ITEMS = Part(
    "items",
    "item_index",
    load=lambda release, stores: load_items(release, stores.items),
    verify=lambda release, stores: verify_items(release, stores.items),
    held=lambda stores, scene: stores.items.releases(),
    drop=lambda stores, scene, release: stores.items.drop(release),
    promote=lambda release, stores: stores.items.promote(release),
    shared=True,
)
FEATURES = Part(
    "features",
    "feature_store",
    load=lambda release, stores: load_features(release, stores.features),
    verify=lambda release, stores: verify_features(release, stores.features),
    held=lambda stores, scene: stores.features.releases(),
    drop=lambda stores, scene, release: stores.features.drop(release),
    promote=lambda release, stores: stores.features.promote(release),
)
SCORER = Part(
    "scorer",
    "scorer",
    load=lambda release, stores: load_model(release, stores.scorer),
    verify=lambda release, stores: verify_model(release, stores.scorer),
    held=lambda stores, scene: stores.scorer.releases(),
    drop=lambda stores, scene, release: stores.scorer.drop(release),
    shared=True,
)

VOCABULARIES = Part(
    "vocabularies",
    "user_store",
    load=lambda release, stores: load_vocabularies(release, stores.users.vocabularies),
    verify=lambda release, stores: verify_vocabularies(release, stores.users.vocabularies),
    held=lambda stores, scene: (),  # ids belong to the scene, not to a release: nothing of them goes with one
    drop=lambda stores, scene, release: None,
)

PARTS: dict[Kind, tuple[Part, ...]] = {"chain": (USERS, ITEMS, FEATURES, SCORER), "scorer": (SCORER,)}
"""In the order in which they are applied."""


def parts_of(release: Release) -> tuple[Part, ...]:
    """The parts of a release: those of its kind, after the vocabularies if any of its features has one that grows."""
    return (*((VOCABULARIES,) if growing_features(release) else ()), *PARTS[release.kind])


def open_for(settings: Settings, parts: Sequence[Part]) -> Stores:
    """Opens the stores of these parts, and the user store, which holds the pointer; a store that no part names may be away."""
    return open_stores(settings, {"user_store", *(part.port for part in parts)})
