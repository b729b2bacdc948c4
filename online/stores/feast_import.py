"""Feast, imported in 3 seconds instead of 13.

Two thirds of `import feast` go into things that serving has no use for: instrumenting Feast's own classes with run-time type
checks (typeguard), and importing torch to see whether it is there. Both are held back while Feast is imported, and only then.
Everything that Marquee uses of Feast is imported from here, so that nothing imports it the slow way first.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typeguard


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """Stands in for `typeguard.typechecked`: returns what it decorates as it is."""
    return target if target is not None else _same


def _same(target: Callable[..., Any]) -> Callable[..., Any]:
    return target


@contextmanager
def _lean() -> Iterator[None]:
    checked, hide_torch = typeguard.typechecked, "torch" not in sys.modules
    typeguard.typechecked = _unchecked
    if hide_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked
        if hide_torch:
            del sys.modules["torch"]


with _lean():
    import feast.infra.offline_stores.duckdb
    import feast.infra.online_stores.sqlite  # noqa: F401
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.data_format import ParquetFormat
    from feast.errors import FeastObjectNotFoundException
    from feast.infra.online_stores.online_store import OnlineStore
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
    from feast.protos.feast.types.Value_pb2 import Value as ValueProto
    from feast.repo_config import RegistryConfig
    from feast.types import Array, Bytes, FeastType, Float32, Int64, String

logging.getLogger("faiss").setLevel(logging.WARNING)  # which Feast loads beside, and which reports every step of that

__all__ = [
    "Array",
    "Bytes",
    "Entity",
    "EntityKeyProto",
    "FeastObjectNotFoundException",
    "FeastType",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Field",
    "FileSource",
    "Float32",
    "Int64",
    "OnlineStore",
    "ParquetFormat",
    "RegistryConfig",
    "RepoConfig",
    "String",
    "ValueProto",
    "ValueType",
]
