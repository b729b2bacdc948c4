"""Opens the stores that the settings name: one URL per port, its scheme chooses the adapter.

Adapters are imported when they are opened, so that a program pays only for the backends it uses. A new backend is a module
with an opener and a line in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any, cast

from data_exchange_center.errors import SettingsError, StoreUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores.local_copy import LIVE, LocalCopy
from online.stores.ports import FeatureStore, ItemIndex, Scorer, Stores, UserStore

# setting in [stores] -> scheme of its URL -> (module, opener); an opener takes the settings and the URL
ADAPTERS: dict[str, dict[str, tuple[str, str]]] = {
    "user_store": {
        "embedded": ("online.stores.embedded_redis", "open_users"),
        "redis": ("online.stores.redis_users", "open_users"),
        "rediss": ("online.stores.redis_users", "open_users"),
        "unix": ("online.stores.redis_users", "open_users"),
    },
    "item_index": {
        "embedded": ("online.stores.embedded_items", "open_items"),
        "http": ("online.stores.elastic_items", "open_items"),
        "https": ("online.stores.elastic_items", "open_items"),
    },
    "feature_store": {
        "embedded": ("online.stores.feast_embedded", "open_features"),
        "redis": ("online.stores.feast_redis", "open_features"),
        "rediss": ("online.stores.feast_redis", "open_features"),
    },
    "scorer": {
        "embedded": ("online.stores.onnx_scorer", "open_scorer"),
        "grpc": ("online.stores.triton_scorer", "open_scorer"),
        "grpcs": ("online.stores.triton_scorer", "open_scorer"),
    },
}

PORTS = ("user_store", "item_index", "feature_store", "scorer")  # in the order of Stores
POINTER_TIMEOUT_S = 2.0


def served_ports(settings: Settings) -> tuple[str, ...]:
    """What a server of the settings' scene uses: every port, or, where rows come whole, the pointer's and the scorer."""
    return ("user_store", "scorer") if settings.rows_only else PORTS


def open_stores(settings: Settings, ports: Collection[str] | None = None) -> Stores:
    """The ports of the settings' scene; the embedded Redis is started when it is needed and does not run.

    Call it after a fork, once per process.

    Args:
        ports: what the caller uses (default: `served_ports`); the others are None, and their backends need not run.

    Raises:
        SettingsError: a URL's scheme is unknown.
        StoreUnavailable: the embedded Redis does not start.
    """
    wanted: Collection[str] = served_ports(settings) if ports is None else ports
    # every URL is checked before anything is started
    openers = [_opener(settings, setting) if setting in wanted else lambda: None for setting in PORTS]
    opened: list[Any] = []
    try:
        for opener in openers:
            opened.append(opener())
    except BaseException:
        Stores(*opened, *[None] * (len(PORTS) - len(opened))).close()
        raise
    return Stores(*opened)


def open_users(settings: Settings) -> UserStore:
    """The user store alone."""
    return cast(UserStore, _opener(settings, "user_store")())


def open_items(settings: Settings) -> ItemIndex:
    """The item index alone."""
    return cast(ItemIndex, _opener(settings, "item_index")())


def open_features(settings: Settings) -> FeatureStore:
    """The feature store alone."""
    return cast(FeatureStore, _opener(settings, "feature_store")())


def open_scorer(settings: Settings) -> Scorer:
    """The scorer alone."""
    return cast(Scorer, _opener(settings, "scorer")())


def import_adapters(settings: Settings) -> None:
    """Imports the modules that `open_stores` will need and opens nothing: for a process that forks its workers."""
    for setting in served_ports(settings):
        _opener(settings, setting)


def live_release(settings: Settings) -> str | None:
    """What the pointer says is live, else its copy on disk; keeps no connection. Starts the embedded Redis when it does not run."""
    try:
        users = open_users(settings)
    except StoreUnavailable:
        copied = LocalCopy(Workspace(settings).online, LIVE).read(settings.scene)
        return copied if isinstance(copied, str) else None
    try:
        return users.live(settings.scene, POINTER_TIMEOUT_S)
    except StoreUnavailable:
        return users.live_copy(settings.scene)
    finally:
        users.close()


def _opener(settings: Settings, setting: str) -> Callable[[], Any]:
    url: str = getattr(settings.stores, setting)
    scheme, separator, _ = url.partition("://")
    known = ADAPTERS[setting]
    if not separator or scheme not in known:
        schemes = ", ".join(f"{name}://" for name in known)
        raise SettingsError(
            f"setting 'stores.{setting}': no adapter for {scheme + separator!r}; known are {schemes}",
            field=f"stores.{setting}",
        )
    module, function = known[scheme]
    opener = getattr(import_module(module), function)
    return lambda: opener(settings, url)
