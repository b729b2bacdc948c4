"""Small files of clicks with a known truth, a scene for them, and a run's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_exchange_center.rows.schema import RowSchema
from data_exchange_center.validation import validated
from offline.training.config import TrainConfig

SPEC = """
scene: clicks
features:
  - {name: i1, entity: candidate, type: numeric, transform: [log1p, standardize]}
  - {name: c1, entity: candidate, type: categorical, dtype: int64, default: -1, vocabulary: {min_frequency: 2}, embedding: 4}
  - {name: c2, entity: candidate, type: categorical, dtype: int64, default: -1, vocabulary: {min_frequency: 2}, embedding: 4}
  - {name: c1_target, entity: candidate, type: numeric, derive: {op: target, inputs: [c1], parameters: {strength: 5}},
     transform: [standardize]}
"""


def click_table(rows: int, seed: int, *, labelled: bool = True) -> pa.Table:
    """Clicks depend on c1 and on i1; a tenth of the values is missing."""
    random = np.random.default_rng(seed)
    c1, c2 = random.integers(0, 6, rows), random.integers(0, 40, rows)
    i1 = random.exponential(3, rows).astype(np.float32)
    labels = (random.random(rows) < 1 / (1 + np.exp(-(c1 - 3.5 + 0.5 * np.log1p(i1))))).astype(np.float32)
    missing = random.random(rows) < 0.1
    columns = {"label": labels, "i1": pa.array(i1, mask=missing), "c1": pa.array(c1, mask=missing), "c2": c2}
    return pa.table(columns if labelled else {name: column for name, column in columns.items() if name != "label"})


def click_files(folder: Path) -> Path:
    """train-0, train-1, validation, test and unlabelled Parquet files, and the scene's spec."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, rows) in enumerate({"train-0": 600, "train-1": 600, "validation": 400, "test": 400}.items()):
        pq.write_table(click_table(rows, seed), folder / f"{name}.parquet", row_group_size=150)
    pq.write_table(click_table(300, 9, labelled=False), folder / "new.parquet")
    (folder / "clicks.yaml").write_text(SPEC, encoding="utf-8")
    return folder


def files_config(folder: Path, output: Path, **values: Any) -> TrainConfig:
    """A small DeepFM on the files of `click_files`."""
    tree: dict[str, Any] = {
        "data": {
            "folder": str(folder),
            "train": ["train-0.parquet", "train-1.parquet"],
            "validation": ["validation.parquet"],
            "test": ["test.parquet"],
            "workers": 1,
        },
        "features": {"spec": str(folder / "clicks.yaml")},
        "model": {"name": "deepfm", "options": {"hidden": [8], "fm_size": 4}},
        "training": {"output": str(output), "epochs": 3, "batch_size": 100, "log_every": 4, "save_every": 5},
        "optimizer": {"dense": {"learning_rate": 0.01}, "embeddings": {"learning_rate": 0.01}, "schedule": "cosine"},
    }
    return validated(TrainConfig, tree, "test").with_values(**values)


class TableReader:
    """A reader of one's own: the rows of one table, in order; see `RowSource`."""

    def __init__(self, paths: list[Path], schema: RowSchema, *, batch_size: int, columns: list[str], **_: Any) -> None:
        self.schema, self.epoch, self.skipped = schema, 0, 0
        table = pa.concat_tables([pq.read_table(path) for path in paths])
        self.batches = table.select(["label", *columns]).combine_chunks().to_batches(batch_size)
        self.done = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while self.done < len(self.batches):
            self.done += 1
            yield self.batches[self.done - 1]
        self.done = 0

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.done = state["done"]
