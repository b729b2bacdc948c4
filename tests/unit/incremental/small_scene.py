"""A scene of single rows that takes no text and little time: brands that grow, a number, and a truth that depends on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_exchange_center.settings import Settings
from offline.incremental.click_scene import ClickScene
from offline.incremental.delivery import Delivery, Nowhere
from offline.incremental.job import DailyJob
from tests.factories import make_settings

SPEC = """
scene: small
features:
  - {name: brand, entity: candidate, type: categorical, dtype: int64, embedding: 4,
     vocabulary: {policy: growing, capacity: 20, token: string}}
  - {name: city, entity: candidate, type: categorical, dtype: int64, vocabulary: {}, embedding: 4}
  - {name: distance, entity: candidate, type: numeric, transform: [standardize]}
"""
RUN = """
data: {train: [x], validation: [x], workers: 1}
features: {spec: small}
model: {name: deepfm, options: {fm_size: 4, hidden: [8]}}
optimizer:
  dense: {name: adam, learning_rate: 0.01}
  embeddings: {name: sparse_adamw, learning_rate: 0.02}
training: {output: x, epochs: 3, batch_size: 128, save_every: 0, keep: 5}
"""
BRANDS = ("一", "two", "three", "four", "five", "new")


def rows_of(seed: int, rows: int = 400, *, brands: int = 5, flipped: float = 0.0) -> pa.Table:
    random = np.random.default_rng(seed)
    brand, city = random.integers(0, brands, rows), random.integers(0, 3, rows)
    distance = random.normal(size=rows).astype(np.float32)
    label = random.random(rows) < 1 / (1 + np.exp(-(1.5 * (brand % 2) * 2 - 1.5 - 1.5 * distance)))
    label = label ^ (random.random(rows) < flipped)
    columns = {
        "label": label.astype(np.float32),
        "brand": np.array(BRANDS, object)[brand],
        "city": city,
        "distance": distance,
        "timestamp": 1_767_225_600 + np.arange(rows),
        "event_id": [f"{seed}.{place}" for place in range(rows)],
    }
    return pa.table(columns)


def written(folder: Path, name: str, table: pa.Table) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def settings_of(folder: Path, **values: Any) -> Settings:
    (folder / "small.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    fixed = {
        "data.dataset": "small",
        "features.spec": str(folder / "small.yaml"),
        "incremental.config": str(folder / "run.yaml"),
        "incremental.replay_rows": 60,
        "incremental.resamples": 50,
        "incremental.auc_margin": 0.05,
        "incremental.logloss_margin": 0.1,
    }
    return make_settings(folder, **(fixed | values))


def job_of(folder: Path, delivery: Delivery | None = None, *, reports: bool = False, **values: Any) -> DailyJob:
    settings = settings_of(folder, **values)
    return DailyJob(settings, ClickScene(settings), delivery or Nowhere(), reports=reports)


def begun(folder: Path, **values: Any) -> DailyJob:
    """A job whose first model is trained."""
    job = job_of(folder, **values)
    job.first(written(folder, "history", rows_of(0, 1500)))
    return job
