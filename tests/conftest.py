"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ml100k() -> Path:
    """The folder of MovieLens 100K; tests that need it are skipped where it is not to be had."""
    folder = os.environ.get("MARQUEE_TEST_DATA", "")
    if not folder:
        pytest.skip("MARQUEE_TEST_DATA is not set: point it to a folder that contains ml-100k/")
    path = Path(folder).expanduser() / "ml-100k"
    if not (path / "u.data").exists():
        pytest.skip(f"MARQUEE_TEST_DATA: {path} has no u.data")
    return path
