"""One seed of the daily benchmark: days under two gates, beside a model that is never updated and one that is trained anew."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.settings import Settings
from data_exchange_center.vocabulary import UNKNOWN, Vocabulary
from data_exchange_center.workspace import Workspace, write_table
from offline.datasets.repair_shop import FIRST_DAY, RepairShopConfig, RepairShopLog, write_day
from offline.incremental.click_scene import ClickScene
from offline.incremental.days import read_day, split_day
from offline.incremental.delivery import Nowhere
from offline.incremental.job import HISTORY, DailyJob
from offline.incremental.state import load_state
from offline.text.sentence_model import open_text_encoder
from offline.text.vector_cache import CachedVectors
from offline.training.metrics import auc, logloss

LAST = 10  # days at the end that models are tested on
TEST_ROWS = 5000  # fresh ones of each
BRAND_ROWS = 20_000  # fresh rows among which those of new brands are looked for
RETRAINED = 3  # of the last days, before which a model is trained anew
EARLIEST = 2  # day that may be poisoned


@dataclass
class Measured:
    """What one seed gave.

    Attributes:
        held, given_up: gate -> days, by number. poisoned: the days whose labels were flipped.
        auc: model -> day -> AUC on fresh rows. logloss: the same.
        job_cpu_s, job_s: of each day. retrain_cpu_s, retrain_s: of each full training.
        forgetting: model -> AUC on replayed rows in the end. replayed: how many rows these are.
        brands: (labels, scores by id, scores as UNK) of new brands' rows.
    """

    poisoned: list[int]
    held: dict[str, list[int]] = field(default_factory=dict)
    given_up: dict[str, list[str]] = field(default_factory=dict)
    auc: dict[str, dict[int, float]] = field(default_factory=dict)
    logloss: dict[str, dict[int, float]] = field(default_factory=dict)
    job_cpu_s: list[float] = field(default_factory=list)
    job_s: list[float] = field(default_factory=list)
    retrain_cpu_s: list[float] = field(default_factory=list)
    retrain_s: list[float] = field(default_factory=list)
    forgetting: dict[str, float] = field(default_factory=dict)
    replayed: int = 0
    brands: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)


def poisoned_days(days: int, count: int, seed: int) -> tuple[int, ...]:
    """Which days are poisoned, by seed, any but the first two."""
    random = np.random.default_rng([seed, 77])
    return tuple(sorted(int(day) for day in random.choice(np.arange(EARLIEST, days), count, replace=False)))


class DailyRun:
    """One seed.

    Args:
        settings: of the store, which is emptied by nobody. seed: of the log and of every training.
        days: that are done. poisoned: how many of them.
    """

    def __init__(self, settings: Settings, seed: int, days: int, poisoned: int) -> None:
        self.days, self.last = days, list(range(days - min(LAST, days - 1) + 1, days + 1))
        chosen = poisoned_days(days, poisoned, seed)
        self.log = RepairShopLog(RepairShopConfig(seed=seed, days=days + 1, poisoned_days=chosen))
        self.measured = Measured(list(chosen))
        root = Workspace(settings).root
        self.vectors = CachedVectors(open_text_encoder(settings), root / "text_vectors")
        self.folder = root / f"seed-{seed}"
        self.settings = settings.with_values(seed=seed)

    def job(self, gate: str) -> DailyJob:
        """The job that decides by a gate, in a store of its own."""
        values = {"data.store": str(self.folder / gate), "incremental.gate": gate}
        settings = self.settings.with_values(**values)
        return DailyJob(settings, ClickScene(settings, self.vectors), Nowhere(), reports=False)

    def whole(self) -> Measured:
        """Everything."""
        history = self.folder / "history.parquet"
        write_table(history, self.log.history())
        job = self.job("bootstrap")
        job.first(history)
        shutil.copytree(self.folder / "bootstrap", self.folder / "plain")
        self.never = self.folder / "never"
        shutil.copytree(job.folder / "runs" / "first", self.never)
        for number in range(self.days):
            self._before(number, job)
            began, cpu = time.perf_counter(), time.process_time()
            outcome = job.run(self._given(number, job), None)
            self.measured.job_s.append(time.perf_counter() - began)
            self.measured.job_cpu_s.append(time.process_time() - cpu)
            self._new_brands(number, job, outcome)
        self._before(self.days, job)
        self._forgetting(job)
        self._outcomes("bootstrap", job)
        plain = self.job("plain")
        for number in range(self.days):
            plain.run(self._given(number, plain), None)
        self._outcomes("plain", plain)
        shutil.rmtree(self.folder)
        return self.measured

    def _given(self, number: int, job: DailyJob) -> str:
        write_day(self.log, number, job.days.folder.parent)
        return _date(number)

    def _live(self, job: DailyJob) -> Path:
        return job.folder / "runs" / load_state(job.folder).live.run

    def _before(self, number: int, job: DailyJob) -> None:
        """Tests the models as they are before a day on fresh rows of that day."""
        if number not in self.last:
            return
        rows = self.log.fresh(number, TEST_ROWS)
        runs = {"never_updated": self.never, "incremental": self._live(job)}
        if number in self.last[:: -(-len(self.last) // RETRAINED)][: RETRAINED - 1] or number == self.last[-1]:
            self.retrained = self._retrained(number, job)
            runs["retrained"] = self.retrained
        for name, run in runs.items():
            labels, scores = self._scored(job, run, rows)
            self.measured.auc.setdefault(name, {})[number] = auc(labels, scores)
            self.measured.logloss.setdefault(name, {})[number] = logloss(labels, scores)

    def _scored(self, job: DailyJob, run: Path, rows: pa.Table, unknown: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Labels and what a run says of raw rows, the tokens of one feature taken for UNK if so wanted."""
        ready = job.scene.ready(rows, job.scene.vocabularies_of(run))
        if unknown:
            ids = pa.array(np.full(len(ready), UNKNOWN), pa.int64())
            ready = ready.set_column(ready.column_names.index(unknown), unknown, ids)
        path = self.folder / "scored.parquet"
        write_table(path, ready)
        return ready[c.LABEL].to_numpy().astype(np.float64), job.scene.probabilities(run, [path])

    def _retrained(self, number: int, job: DailyJob) -> Path:
        """A model trained anew on the history and every day that was not held; its epoch is picked on their validation rows."""
        scene, state = job.scene, load_state(job.folder)
        began, cpu = time.perf_counter(), time.process_time()
        history = self.log.history()
        cut = len(history) - round(len(history) * job.chosen.validation_share)
        parts = [(history.slice(0, cut), history.slice(cut))]
        good = [day for day, outcome in sorted(state.finished.items()) if outcome.outcome == "promoted"]
        parts += [split_day(read_day(job.days.path(day)), job.chosen.validation_share) for day in good]
        train, validation = (pa.concat_tables([part[side] for part in parts]) for side in (0, 1))
        vocabularies = scene.grown(pa.concat_tables([train, validation]), {})
        work = self.folder / f"retrained-{number}"
        for vocabulary in vocabularies.values():
            vocabulary.save(work / "vocabularies")
        for name, table in (("train", train), ("validation", validation)):
            write_table(work / f"{name}.parquet", scene.ready(table, vocabularies))
        scene.first(work / "train.parquet", work / "validation.parquet", work / "vocabularies", work / "run")
        self.measured.retrain_s.append(time.perf_counter() - began)
        self.measured.retrain_cpu_s.append(time.process_time() - cpu)
        return work / "run"

    def _forgetting(self, job: DailyJob) -> None:
        """AUC in the end on the rows that are replayed, of the live model and of the one that was trained anew."""
        state = load_state(job.folder)
        replayed = [date for date in job.replay.chosen(state.replayed) if date != HISTORY]
        rows = pa.concat_tables(
            [split_day(read_day(job.days.path(date)), job.chosen.validation_share)[1] for date in replayed]
        )
        kept = set(pc.cast(job.replay.read(replayed)["event_id"], pa.string()).to_pylist())  # type: ignore[index]
        rows = rows.filter(pc.is_in(rows["event_id"], pa.array(sorted(kept))))
        for name, run in (
            ("incremental", self._live(job)),
            ("retrained", self.retrained),
            ("never_updated", self.never),
        ):
            labels, scores = self._scored(job, run, rows)
            self.measured.forgetting[name] = auc(labels, scores)
        self.measured.replayed = len(rows)

    def _new_brands(self, number: int, job: DailyJob, outcome: dict[str, Any]) -> None:
        """After the first promoted job that saw brands: their fresh rows of the next day, by their ids and as UNK."""
        if outcome["outcome"] != "promoted" or number + 1 > self.days:
            return
        dates = [(FIRST_DAY + timedelta(days=day)).isoformat() for day in range(number + 1)]
        brands = [
            b for day, date in enumerate(dates) if date in outcome["learned"] for b in self.log.facts(day).new_brands
        ]
        brands = [brand for brand in brands if brand in self._known(job)["car_brand"].ids]
        if not brands:
            return
        rows = self.log.fresh(number + 1, BRAND_ROWS)
        rows = rows.filter(pc.is_in(rows["car_brand"], pa.array(brands)))
        labels, by_id = self._scored(job, self._live(job), rows)
        _, as_unknown = self._scored(job, self._live(job), rows, "car_brand")
        self.measured.brands.append((labels, by_id, as_unknown))

    def _known(self, job: DailyJob) -> dict[str, Vocabulary]:
        return job.scene.vocabularies_of(self._live(job))

    def _outcomes(self, gate: str, job: DailyJob) -> None:
        finished = load_state(job.folder).finished
        numbers = {_date(number): number for number in range(self.days)}
        self.measured.held[gate] = [numbers[date] for date, one in finished.items() if one.outcome == "held"]
        self.measured.given_up[gate] = [one.date for one in load_state(job.folder).given_up]


def _date(number: int) -> str:
    return (FIRST_DAY + timedelta(days=number)).isoformat()


def brand_rows(runs: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The new brands' rows of all seeds: labels, scores by id, scores as UNK."""
    parts = [part for run in runs for part in run.brands]
    labels, by_id, as_unknown = (np.concatenate([part[place] for part in parts]) for place in range(3))
    return labels, by_id, as_unknown
