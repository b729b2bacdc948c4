"""Fitted once, read by many tests."""

from __future__ import annotations

import pytest
import torch

from data_exchange_center.settings import RecallSettings
from offline.recall.known_rows import KnownRows
from offline.recall.vector_training import Trained, fit_vectors
from tests.unit.recall.world import make_world


@pytest.fixture(scope="session")
def recall_settings() -> RecallSettings:
    return RecallSettings(dimension=8, neighbours=40, item_regularization=20.0, epochs=4)


@pytest.fixture(scope="session")
def world() -> KnownRows:
    return make_world()


@pytest.fixture(scope="session")
def trained(world: KnownRows, recall_settings: RecallSettings) -> Trained:
    torch.set_num_threads(1)
    return fit_vectors(world, recall_settings, seed=0)
