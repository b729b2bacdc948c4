"""A small chain that is trained in seconds: a generated log, and a spec of few features of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_table, write_table
from offline.datasets.registry import load_dataset
from offline.incremental.chain_log import dates_of
from offline.incremental.chain_scene import ChainScene
from offline.incremental.delivery import Released
from offline.incremental.job import DailyJob
from tests.factories import make_settings

SPEC = """
scene: small_chain
features:
  - {name: user_id, entity: user, type: categorical, dtype: id, key: true, embedding: 4,
     vocabulary: {policy: learned, min_frequency: 2}}
  - {name: item_id, entity: item, type: categorical, dtype: id, key: true, embedding: 4,
     vocabulary: {policy: learned, min_frequency: 2}}
  - {name: gender, entity: user, type: categorical, dtype: string, default: "", vocabulary: {policy: learned}, embedding: 2}
  - {name: genres, entity: item, type: multi_categorical, dtype: string, default: "", length: 4, embedding: 4,
     vocabulary: {policy: learned}}
  - {name: history_items, entity: user, type: sequence, dtype: id, length: 5, vocabulary: {share: item_id}, embedding: 4}
  - {name: user_events, entity: user, type: numeric, transform: [log1p, standardize]}
  - {name: user_positives, entity: user, type: numeric, cross_only: true}
  - {name: user_global_rate, entity: user, type: numeric, cross_only: true}
  - {name: item_rate, entity: item, type: numeric, transform: [standardize]}
  - {name: affinity_mean, entity: candidate, type: numeric, transform: [standardize]}
  - {name: recall_vector, entity: candidate, type: numeric, heads: [choose], transform: [standardize]}
  - {name: user_rate, entity: cross, type: numeric,
     cross: {op: rate, inputs: [user_positives, user_events, user_global_rate], parameters: {strength: 5}}}
"""


def small_settings(folder: Path, **values: object) -> Settings:
    """Settings of the small chain in a store of its own."""
    spec = folder / "small_chain.yaml"
    spec.parent.mkdir(parents=True, exist_ok=True)
    spec.write_text(SPEC, encoding="utf-8")
    small = {
        "data.dataset": "synthetic",
        "data.synthetic_users": 80,
        "data.synthetic_items": 60,
        "data.synthetic_events": 2400,
        "features.spec": str(spec),
        "rank.epochs": 2,
        "recall.dimension": 4,
        "rank.model": "fm",
        "recall.epochs": 1,
        "recall.neighbours": 20,
        "serve.prerank_size": 40,
        "incremental.publish": False,
        "incremental.spread_between_days": 0.3,
        "incremental.auc_margin": 0.5,
        "incremental.logloss_margin": 1.0,
    }
    return make_settings(folder, **{**small, **values})


def events_of(settings: Settings) -> pa.Table:
    """The generated log."""
    load_dataset(settings)
    return read_table(Workspace(settings).tables / "interactions.parquet")


def day_after(events: pa.Table, number: int) -> tuple[str, pa.Table]:
    """A day that the log does not hold: events of its end, some days later, by other users, some of whom nobody has met."""
    rows = events.sort_by("timestamp").slice(len(events) - 60).to_pandas()
    rows["timestamp"] = rows["timestamp"].max() + number * 86_400 + np.sort(rows["timestamp"] % 3600)
    rows["user_id"] = np.where(np.arange(60) < 12, 5000 + 10 * number + np.arange(60) // 4, 1 + rows["user_id"] % 70)
    table = pa.Table.from_pandas(rows, schema=events.schema, preserve_index=False)
    return str(dates_of(table["timestamp"].to_numpy())[0]), table


def chain_job(settings: Settings) -> DailyJob:
    return DailyJob(settings, ChainScene(settings), Released(settings), reports=False)


def written(folder: Path, date: str, rows: pa.Table) -> Path:
    path = folder / "given" / f"{date or 'history'}.parquet"
    write_table(path, rows)
    return path
