"""Generated click rows, shaped like Criteo's, of any size, with a truth that is known and written beside them.

What is in them, so that every kind of model has something to find:

- *categories with heavy tails*: a category's frequency falls as 1 / (rank + 1); features have from a few to millions of them.
  Each category shifts the log-odds by a number of its own (a linear model finds it for the frequent ones);
- *numbers* of a log-normal kind, whole, with an effect that is not linear in them (bins or a network find it);
- *pairs*: the inner products of hidden vectors of pairs of categories (a factorization machine finds them), and slopes of a number
  that depend on a category;
- *missing values*, as many as in Criteo's logs, which tell something themselves;
- a *hidden activity* of each row moves all numbers together.

The label is drawn with the probability that these give: no model can be better than the true log-odds, and how good those are
(AUC, logloss) is written beside the rows. Any block of rows can be made alone: it depends on the seed and its number only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.special import expit, ndtri
from tqdm import tqdm

from data_exchange_center.errors import SettingsError
from data_exchange_center.rows.schema import CATEGORIES, INTEGERS, criteo_schema
from data_exchange_center.workspace import atomic_folder, write_json
from offline.datasets.row_writers import SUFFIXES, RowFormat, row_writer
from offline.training.streaming_auc import StreamingAuc

BLOCK = 65_536  # rows that are made at once
TRUTH = "_truth"  # folder beside the rows; readers of the rows leave names with an underscore out
FACTORS = 4
# as in the challenge's training set, about: distinct categories, and the share of rows in which each is missing
CARDINALITIES = (
    1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194, 27, 14_992, 5_461_306,
    10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572,
)  # fmt: skip
ID_MISSING = (
    0, 0, 0.034, 0.034, 0, 0.121, 0, 0, 0, 0, 0, 0.034, 0, 0, 0, 0.034, 0, 0, 0.44, 0.44, 0.034, 0.762, 0, 0.034, 0.44, 0.44,
)  # fmt: skip
NUMBER_MISSING = (0.454, 0, 0.214, 0.216, 0.026, 0.223, 0.043, 0.001, 0.043, 0.454, 0.043, 0.765, 0.216)
PAIRS = ((0, 1), (1, 8), (5, 8), (13, 16), (4, 7), (19, 22))  # of categories, from 0
SLOPES = ((0, 8), (4, 16), (6, 22))  # (number, category), from 0


@dataclass(frozen=True)
class Block:
    """Rows of `criteo_schema()` and the true log-odds of each, [rows] float64."""

    rows: pa.RecordBatch
    logit: np.ndarray


class SyntheticClicks:
    """The generator.

    Args:
        seed: of the truth and the rows.
        click_rate: share of clicks, about.
    """

    def __init__(self, seed: int = 0, click_rate: float = 0.25) -> None:
        self.seed, self.click_rate = seed, click_rate
        random = np.random.default_rng([seed, 0])
        self._location = random.uniform(0.5, 4.0, INTEGERS)
        self._spread = random.uniform(0.8, 1.6, INTEGERS)
        self._slope = random.normal(0, 0.25, INTEGERS)
        self._bump = random.normal(0, 0.35, INTEGERS)
        self._missing_number = random.normal(0, 0.25, INTEGERS)
        self._missing_id = random.normal(0, 0.25, CATEGORIES)
        self._scale = random.uniform(0.08, 0.32, CATEGORIES)  # of the categories' own effects

    def block(self, number: int, rows: int = BLOCK) -> Block:
        """The first rows of a block; the same whatever the other blocks are."""
        random = np.random.default_rng([self.seed, 1, number])
        numbers, ranks, logit = self.draw(random, rows)
        logit = logit + self._intercept
        label = (random.random(rows) < expit(logit)).astype(np.float32)
        columns = [pa.array(label)]
        columns += [pa.array(values.astype(np.float32), mask=values < -1) for values in numbers.T]
        columns += [pa.array(self._ids(place, values), mask=values < 0) for place, values in enumerate(ranks.T)]
        return Block(pa.RecordBatch.from_arrays(columns, schema=criteo_schema().arrow), logit)

    def blocks(self, rows: int, *, start: int = 0) -> Iterator[Block]:
        """Blocks of so many rows in all, beginning with block `start`."""
        for number in range(-(-rows // BLOCK)):
            yield self.block(start + number, min(BLOCK, rows - number * BLOCK))

    @cached_property
    def _intercept(self) -> float:
        """Brings the clicks to their rate, on rows of its own."""
        _, _, logit = self.draw(np.random.default_rng([self.seed, 2]), BLOCK)
        low, high = -20.0, 20.0
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (middle, high) if expit(logit + middle).mean() < self.click_rate else (low, middle)
        return low

    def draw(self, random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers [rows, 13] (-9: missing), ranks of categories [rows, 26] (-1: missing) and log-odds without intercept."""
        activity = random.normal(size=(rows, 1))
        standard = 0.5 * activity + np.sqrt(0.75) * random.normal(size=(rows, INTEGERS))
        numbers = np.minimum(np.floor(np.exp(self._location + self._spread * standard)) - 1, 2.0**24)
        numbers[random.random((rows, INTEGERS)) < NUMBER_MISSING] = -9
        ranks = np.floor(np.exp(random.random((rows, CATEGORIES)) * np.log(np.array(CARDINALITIES) + 1.0))) - 1
        ranks = ranks.astype(np.int64)
        ranks[random.random((rows, CATEGORIES)) < ID_MISSING] = -1
        return numbers, ranks, self.logit(numbers, ranks)

    def logit(self, numbers: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """True log-odds without the intercept, [rows], of numbers and ranks as `draw` gives them."""
        there = numbers > -2
        scaled = (np.log(np.maximum(numbers, -1) + 2) - self._location) / self._spread
        effects = self._slope * np.tanh(scaled) + self._bump * np.exp(-2 * (scaled - 0.5) ** 2)
        logit = np.where(there, effects, self._missing_number).sum(1)
        for place in range(CATEGORIES):
            own = self._scale[place] * self._normal(place, ranks[:, place], 0)
            logit += np.where(ranks[:, place] >= 0, own, self._missing_id[place])
        for first, second in PAIRS:
            both = (ranks[:, first] >= 0) & (ranks[:, second] >= 0)
            product = sum(
                self._normal(first, ranks[:, first], 1 + factor) * self._normal(second, ranks[:, second], 1 + factor)
                for factor in range(FACTORS)
            )
            logit += np.where(both, 0.45 * product / np.sqrt(FACTORS), 0)
        for number, place in SLOPES:
            both = there[:, number] & (ranks[:, place] >= 0)
            slope = self._normal(place, ranks[:, place], 1 + FACTORS)
            logit += np.where(both, 0.4 * slope * np.tanh(scaled[:, number]), 0)
        return logit

    def _normal(self, place: int, ranks: np.ndarray, purpose: int) -> np.ndarray:
        """A standard normal number for each category, always the same: a hash of the category, brought to that shape."""
        key = (ranks.astype(np.uint64) << np.uint64(16)) + np.uint64(place * 64 + purpose)
        uniform = (_mixed(key + np.uint64(self.seed * 0x632BE59BD9B4E019 % 2**64)) >> np.uint64(11)) + np.uint64(1)
        return ndtri(uniform.astype(np.float64) / 2.0**53 * (1 - 2.0**-52))

    def _ids(self, place: int, ranks: np.ndarray) -> np.ndarray:
        """Ids below 2^32 as Criteo's look: a different one for each rank, in no order."""
        key = ranks.astype(np.uint32)
        for multiplier, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):  # each step can be undone
            key ^= key >> np.uint32(shift)
            key *= np.uint32(multiplier)
        return (key ^ np.uint32((place + 1) * 0x9E3779B9 & 0xFFFFFFFF)).astype(np.int64)


def _mixed(key: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def write_synthetic(
    folder: Path,
    rows: int,
    *,
    form: RowFormat = "parquet",
    seed: int = 0,
    click_rate: float = 0.25,
    rows_per_file: int = 1 << 20,
) -> dict[str, Any]:
    """Writes rows and their truth, streaming: `part-<n>` files and `_truth/`, the folder under its name when all is whole.

    Args:
        folder: must not exist.
        rows: in all, at least one.
        form: parquet, tsv or slot.
        seed, click_rate: see `SyntheticClicks`.
        rows_per_file: the last file may have fewer.

    Returns:
        What `_truth/truth.json` holds: rows, seed, click_rate, auc (streamed, with auc_bound) and logloss of the true log-odds.
    """
    if rows < 1:
        raise SettingsError(f"generated clicks: at least one row is needed, not {rows}", field="data.synthetic_clicks")
    clicks = SyntheticClicks(seed, click_rate)
    best = StreamingAuc()
    loss, positives = 0.0, 0.0
    blocks_per_file = -(-rows_per_file // BLOCK)
    with atomic_folder(folder) as temporary, tqdm(total=rows, desc="generating", unit="row", unit_scale=True) as bar:
        (temporary / TRUTH).mkdir()
        for part in range(-(-rows // rows_per_file)):
            name = f"part-{part:05d}"
            truth = temporary / TRUTH / f"{name}.parquet"
            size = min(rows_per_file, rows - part * rows_per_file)
            with (
                row_writer(temporary / f"{name}{SUFFIXES[form]}", criteo_schema(), form) as write,
                pq.ParquetWriter(truth, pa.schema([("true_logit", pa.float32())])) as write_truth,
            ):
                for made in clicks.blocks(size, start=part * blocks_per_file):
                    write(made.rows)
                    logit = made.logit.astype(np.float32)
                    write_truth.write_table(pa.table({"true_logit": logit}))
                    labels = made.rows["label"].to_numpy()
                    best.update(torch.from_numpy(labels.copy()), torch.from_numpy(logit))
                    loss += float(np.sum(np.logaddexp(0, made.logit) - labels * made.logit))
                    positives += float(labels.sum())
                    bar.update(len(labels))
        result = best.result()
        summary = {
            "rows": rows,
            "seed": seed,
            "click_rate": round(positives / rows, 6),
            "auc": None if np.isnan(result.value) else round(result.value, 6),
            "auc_bound": None if np.isnan(result.bound) else round(result.bound, 6),
            "logloss": round(loss / rows, 6),
        }
        write_json(temporary / TRUTH / "truth.json", summary)
    return summary
