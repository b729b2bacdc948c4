"""What a click ranker says about rows: logits, probabilities and how good they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from data_exchange_center.columns import LABEL
from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_table, write_table
from offline.models.numbers import HEADS
from offline.models.ranker import Ranker
from offline.training.batches import moved
from offline.training.dataset import LikeBatch
from offline.training.metrics import click_metrics

PROBABILITY = "probability"


@dataclass(frozen=True)
class Scores:
    """Rows in the order of their files.

    Attributes:
        labels: float32 [rows]. logits: float32 [rows], calibrated as the network is.
        groups: int64 [rows], or None.
    """

    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [rows]."""
        return 1 / (1 + np.exp(-self.logits.astype(np.float64)))

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """AUC, logloss, calibration error, and GAUC where there are groups; see `click_metrics`."""
        measured = click_metrics(self.labels, self.probabilities, self.groups)
        return {name: value if np.isfinite(value) else None for name, value in measured.items()}


def logits_of(
    ranker: Ranker, batches: Iterable[LikeBatch], device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Labels and calibrated logits, batch by batch."""
    ranker.eval()
    members = [ranker.member(place) for place in range(len(ranker.members))]
    slope, offset = ranker.calibration[HEADS.index("like")].tolist()
    with torch.no_grad():  # look-ups in tables that TorchRec has sharded do not work in inference mode
        for given in batches:
            batch = moved(given, device)
            each = [member.heads["like"](member.trunk.assemble(batch.inputs, batch.numbers)) for member in members]
            mean = ranker.averaged(each, batch.numbers.item)
            yield given.labels.numpy(), (mean * slope + offset).cpu().numpy()


def scored(
    ranker: Ranker, batches: Iterable[LikeBatch], device: torch.device, groups: np.ndarray | None = None
) -> Scores:
    """Scores labelled rows.

    Raises:
        DataError: no row, or rows without labels.
    """
    made = list(logits_of(ranker, batches, device))
    if not made:
        raise DataError("there is no row to score")
    labels, logits = (np.concatenate(column) for column in zip(*made, strict=True))
    if np.isnan(labels).any():
        raise DataError("rows without labels cannot be judged; predict.py scores them")
    return Scores(labels, logits, groups)


def save_scores(path: Path, scores: Scores) -> None:
    """Writes labels and probabilities as Parquet."""
    write_table(path, pa.table({LABEL: scores.labels, PROBABILITY: scores.probabilities}))


def load_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(labels, probabilities) of `save_scores`."""
    table = read_table(path)
    return table[LABEL].to_numpy(), table[PROBABILITY].to_numpy()
