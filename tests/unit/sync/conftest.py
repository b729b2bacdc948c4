"""A store of its own per test, and a look into it that goes past the publisher's own checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores import embedded_redis
from tests.factories import make_settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Keeps two releases; its embedded Redis is stopped at the end."""
    made = make_settings(tmp_path, **{"stores.keep_releases": 2})
    yield made
    embedded_redis.stop(Workspace(made).online)
