"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ml100k() -> Path:
    """The folder of MovieLens 100K; tests that need it are skipped where it is not to be had."""
    return _test_data("ml-100k", "u.data")


@pytest.fixture(scope="session")
def criteo() -> Path:
    """The folder of the sample of Criteo's clicks in 8 ORC files; tests that need it are skipped where it is not to be had."""
    return _test_data("criteo-orc", "part-7.orc")


def _test_data(name: str, file: str) -> Path:
    folder = os.environ.get("MARQUEE_TEST_DATA", "")
    if not folder:
        pytest.skip(f"MARQUEE_TEST_DATA is not set: point it to a folder that contains {name}/")
    path = Path(folder).expanduser() / name
    if not (path / file).exists():
        pytest.skip(f"MARQUEE_TEST_DATA: {path} has no {file}")
    return path
