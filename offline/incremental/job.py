"""One day, from its rows to a promoted or a held candidate.

    incremental/state.json                    what is known between days (state.py); replaced at the end of a job, which commits it
                work/<date>/                  journal, vocabularies and candidates of a job that is not done
                ready/<date>/                 train.parquet and validation.parquet of days that wait or are learned again
                replay/<date>.parquet         samples of promoted days (replay.py)
                runs/<name>/                  promoted runs, the newest last; <date>-accepted of a day that a person accepted
                evidence/<date>.json          what the gate looked at, and report.html over all days

A job that is killed anywhere is simply run again. Until the state is replaced nothing of a job counts: its candidate is trained
once (a training goes on from its own checkpoints), its release is packed once (found again by what its manifest notes), publishing
is repeated harmlessly. Running a day again that is finished returns what came of it.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError
from data_exchange_center.owned_lock import owned_lock
from data_exchange_center.settings import Settings
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import Workspace, atomic_folder, read_json, read_table, write_json, write_table
from offline.incremental.backlog import HeldDay, after_job
from offline.incremental.day_fit import DayFit, fit_of, unlike_the_others
from offline.incremental.days import ArchivedDay, DayArchive, checked_date, read_day, split_day
from offline.incremental.delivery import Delivery
from offline.incremental.evidence import Attempt, evidence_of
from offline.incremental.gate import Evidence, Judged, gate_named
from offline.incremental.journal import DayJournal
from offline.incremental.replay import Replay
from offline.incremental.report import write_daily_report
from offline.incremental.scene import Scene
from offline.incremental.state import JobState, Live, Outcome, load_state
from offline.incremental.verdicts import discarded, given, held_day
from offline.training.config import digest
from offline.training.metrics import click_metrics, finite

log = logging.getLogger("marquee")

TRAIN, VALIDATION = "train.parquet", "validation.parquet"
FIRST_RUN = "first"
HISTORY = "0-history"  # the sample of the first training's validation; before every date


class DailyJob:
    """The job of one scene.

    Args:
        settings: of the store and of `incremental`.
        scene: what is trained.
        delivery: how a promoted run is released and goes live.
        reports: write the page after each day.
    """

    def __init__(self, settings: Settings, scene: Scene, delivery: Delivery, *, reports: bool = True) -> None:
        self.settings, self.scene, self.delivery, self.reports = settings, scene, delivery, reports
        self.chosen = settings.incremental
        workspace = Workspace(settings)
        self.folder = workspace.incremental
        self.days = DayArchive(workspace.days)
        self.replay = Replay(self.folder / "replay", self.chosen.replay_days, self.chosen.replay_rows)

    def first(self, history: Path) -> dict[str, Any]:
        """Trains the first model on a log's rows, whose newest part picks the epoch, and makes it live.

        Raises:
            LockHeld: another job is at work. DataError: the rows cannot be used.
        """
        with self._alone("first training"):
            if (self.folder / "state.json").exists():
                return {"already": True, **self._shown(load_state(self.folder))}
            table = read_day(history)
            self.scene.check(table, "")
            journal = DayJournal(
                self.folder / "work" / FIRST_RUN, {"rows": len(table), "scene": self.scene.fingerprint}
            )
            table = table.sort_by(c.TIMESTAMP) if c.TIMESTAMP in table.column_names else table
            if journal.fresh:
                shutil.rmtree(self.folder / "runs", ignore_errors=True)
            vocabularies = self._vocabularies(journal, table, {})
            ready = self.scene.ready(table, vocabularies)  # at once: a row may be read as of the rows before it
            cut = len(ready) - max(1, round(len(ready) * self.chosen.validation_share))
            train, validation = (
                self._written(journal.folder / name, part)
                for name, part in ((TRAIN, ready.slice(0, cut)), (VALIDATION, ready.slice(cut)))
            )
            run = self.folder / "runs" / FIRST_RUN
            self.scene.first(train, validation, journal.folder / "vocabularies", run)
            judged = read_table(validation)
            day = fit_of("", _labels(judged), self.scene.probabilities(run, [validation]))
            self.replay.keep(HISTORY, judged)
            release = self.delivery.deliver(self.scene, run, {"date": "", "run": FIRST_RUN}, journal)
            state = JobState(
                promoted=(Live(run=FIRST_RUN, release=release, date=""),), fits=(day,), replayed=(HISTORY,)
            )
            state.save(self.folder)
            journal.close()
            return {"already": False, "auc": day.auc.value, "logloss": day.logloss.value, **self._shown(state)}

    def run(self, date: str, source: Path | None = None) -> dict[str, Any]:
        """Does one day.

        Args:
            date: YYYY-MM-DD, after every day that was done before.
            source: Parquet file of its rows; None when they lie in the archive.

        Returns:
            outcome (promoted or held), reasons, release, live, backlog and what was given up, seconds per step.

        Raises:
            LockHeld: another job is at work. DataError: no first model, no rows, rows that changed, or a day that is too late.
        """
        with self._alone(f"the day {checked_date(date)}"):
            state = load_state(self.folder)
            day = self.days.archive(date, source, self.scene.check)
            if date in state.finished:
                return self._finished_before(state, day)
            late = [done for done in state.finished if done > date]
            if late:
                raise DataError(
                    f"{date}: {max(late)} is done already, and days are learned in order; its rows stay archived"
                )
            return self._done(state, day)

    def accept(self, date: str, by: str, why: str) -> dict[str, Any]:
        """Learns a day that was held, because a person found it good, and makes the candidate live whatever the gate finds.

        What the gate finds is kept as evidence, and the day counts as a good one from then on: later days are compared with it too.

        Args:
            date: of a day that waits, or was given up. by, why: for the record.

        Raises:
            LockHeld: another job is at work. DataError: the day is none of these, or its rows are not those that were held.
        """
        with self._alone(f"the acceptance of {checked_date(date)}"):
            state = load_state(self.folder)
            if state.finished.get(date) and state.finished[date].outcome == "accepted":
                return {"already": True, **self._result(state, date)}
            held_day(state, date)
            day = self.days.archive(date)
            if day.sha256 != state.finished[date].rows_sha256:
                raise DataError(f"{date}: the archive holds other rows than those that were held")
            return self._accepted(self.delivery.as_live(state), day, by, why)

    def _accepted(self, state: JobState, day: ArchivedDay, by: str, why: str) -> dict[str, Any]:
        started = time.perf_counter()
        date, run = day.date, f"{day.date}-accepted"
        journal = DayJournal(self.folder / "work" / run, self._head(state, day))
        if journal.fresh:
            _only(self.folder / "runs", {one.run for one in state.promoted})
        verdict = given(journal.once("verdict", lambda: self._verdict(date, "accepted", by, why)))
        rows = read_day(self.days.path(date))
        self._made_ready(
            date, rows, self._vocabularies(journal, rows, self.scene.vocabularies_of(self._run(state.live)))
        )
        fit = self._fit(state, date)
        attempt = self._attempt(state, journal, [date], fit, run)
        release = self.delivery.deliver(self.scene, self.folder / "runs" / run, {"date": date, "run": run}, journal)
        outcome = state.finished[date].model_copy(
            update={"outcome": "accepted", "learned": (date,), "release": release}
        )
        after = state.with_values(
            waiting=tuple(one for one in state.waiting if one.date != date),
            given_up=tuple(one for one in state.given_up if one.date != date),
            finished={**state.finished, date: outcome},
            verdicts=(*state.verdicts, verdict),
            **self._promoted(state, Live(run=run, release=release, date=date), {date: fit}),
        )
        self._add_evidence(date, evidence_of(day, fit, {}, [attempt], {}))
        self._committed(after)
        return {**self._result(after, date), "job_seconds": time.perf_counter() - started}

    def discard(self, date: str, by: str, why: str) -> dict[str, Any]:
        """Takes a day that was held out of the backlog for good; its rows stay in the archive.

        Raises:
            LockHeld: another job is at work. DataError: the day neither waits nor was given up.
        """
        with self._alone(f"the discarding of {checked_date(date)}"):
            state = load_state(self.folder)
            if state.finished.get(date) and state.finished[date].outcome == "discarded":
                return {"already": True, **self._result(state, date)}
            after = discarded(state, given(self._verdict(date, "discarded", by, why)))
            self._committed(after)
            return self._result(after, date)

    def _verdict(self, date: str, verdict: str, by: str, why: str) -> dict[str, str]:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return {"date": date, "verdict": verdict, "by": by, "at": at, "why": why}

    def _add_evidence(self, date: str, more: Mapping[str, Any]) -> None:
        """Keeps what was found when the day was held, and what was found now behind it; once, however often this is called."""
        path = self.folder / "evidence" / f"{date}.json"
        before, runs = read_json(path), {one["run"] for one in more["attempts"]}
        attempts = [one for one in before["attempts"] if one["run"] not in runs]
        write_json(path, {**before, "attempts": [*attempts, *more["attempts"]]})

    def _committed(self, after: JobState) -> None:
        """What a person decided becomes part of the state, and shows in the report."""
        if self.reports:
            write_daily_report(self.folder, after, self.chosen.gate)
        after.save(self.folder)
        self._tidy(after)

    def _done(self, state: JobState, day: ArchivedDay) -> dict[str, Any]:
        started = time.perf_counter()
        state = self.delivery.as_live(state)
        work = self.folder / "work" / day.date
        journal = DayJournal(work, self._head(state, day))
        if journal.fresh:  # what a job that was killed left of another beginning
            _only(self.folder / "runs", {one.run for one in state.promoted})
        seconds: dict[str, float] = {}
        with _timed(seconds, "prepare"):
            rows = read_day(self.days.path(day.date))
            vocabularies = self._vocabularies(journal, rows, self.scene.vocabularies_of(self._run(state.live)))
            self._made_ready(day.date, rows, vocabularies)
        with _timed(seconds, "look at days"):
            fit = self._fit(state, day.date)
            waiting = {held.date: self._fit(state, held.date) for held in state.waiting}
            bad = {held.date for held in state.waiting if not self._looks_good(waiting[held.date], state)}
            good = [held.date for held in state.waiting if held.date not in bad]
        attempts = []
        with _timed(seconds, "train and judge"):
            for dates in self._attempts(day.date, good, fit, state):
                attempts.append(self._attempt(state, journal, dates, fit))
                if attempts[-1].decision.promote:
                    break
        last = attempts[-1]
        release = ""
        with _timed(seconds, "deliver"):
            if last.decision.promote:
                note = {"date": day.date, "run": last.run}
                release = self.delivery.deliver(self.scene, self.folder / "runs" / last.run, note, journal)
        after = self._after(state, day, fit, waiting, attempts, release, bad)
        with _timed(seconds, "report"):
            evidence = evidence_of(day, fit, waiting, attempts, seconds)
            write_json(self.folder / "evidence" / f"{day.date}.json", evidence)
            if self.reports:
                write_daily_report(self.folder, after, self.chosen.gate)
        after.save(self.folder)
        self._tidy(after)
        log.info("  %s: %s", day.date, after.finished[day.date].outcome)
        return {**self._result(after, day.date), "seconds_of": seconds, "job_seconds": time.perf_counter() - started}

    def _attempts(self, date: str, good: Sequence[str], fit: DayFit, state: JobState) -> list[list[str]]:
        """What candidates learn from, in the order in which they are tried."""
        if good and self._looks_good(fit, state):
            return [[*good, date], [date]]
        return [[date]]

    def _attempt(
        self, state: JobState, journal: DayJournal, dates: Sequence[str], fit: DayFit, name: str = ""
    ) -> Attempt:
        """Trains and judges one candidate; its run is named after the days, unless a name is given."""
        name = name or (dates[-1] if len(dates) == 1 else f"{dates[-1]}-with-{len(dates) - 1}")
        live, run = self._run(state.live), self.folder / "runs" / name
        new, again = ([self._ready(date) / TRAIN for date in days] for days in (dates, self._rehearsed(state)))
        self.scene.update(live, new, journal.folder / "vocabularies", run, again)
        judged, metrics = self._judged(state, journal.folder, dates, live, run)
        decision = gate_named(self.chosen.gate)(Evidence(judged, fit, state.fits, self.settings.seed), self.chosen)
        return Attempt(name, tuple(dates), decision, metrics)

    def _rehearsed(self, state: JobState) -> list[str]:
        """Good days that are learned again: one day alone would be learned by heart, or hardly at all."""
        days = sorted(set(state.replayed) - {HISTORY})
        return days[len(days) - min(self.chosen.rehearsal_days, len(days)) :]

    def _judged(
        self, state: JobState, work: Path, dates: Sequence[str], live: Path, run: Path
    ) -> tuple[Judged, dict[str, Any]]:
        """Both models on the days' validation rows and the replayed ones."""
        new = pa.concat_tables([read_table(self._ready(date) / VALIDATION) for date in dates])
        old = self.replay.read(state.replayed)
        table = pa.concat_tables([new, old]) if old is not None else new
        path = self._written(work / "judged.parquet", table)
        labels, replayed = _labels(table), np.arange(len(table)) >= len(new)
        scores = {"live": self.scene.probabilities(live, [path]), "candidate": self.scene.probabilities(run, [path])}
        segments = {name: table[name].to_numpy() for name in self.scene.segments if name in table.column_names}
        metrics = {
            name: {
                part: finite(click_metrics(labels[chosen], values[chosen]))
                for part, chosen in (("day", ~replayed), ("replayed", replayed))
                if chosen.any()
            }
            for name, values in scores.items()
        }
        return Judged(labels, scores["live"], scores["candidate"], replayed, segments), metrics

    def _after(
        self,
        state: JobState,
        day: ArchivedDay,
        fit: DayFit,
        waiting: Mapping[str, DayFit],
        attempts: Sequence[Attempt],
        release: str,
        bad: set[str],
    ) -> JobState:
        """The state that this job leaves."""
        last = attempts[-1]
        promoted = last.decision.promote
        learned = last.learned if promoted else ()
        failed = [_failure(held, "still unlike the other days") for held in state.waiting if held.date in bad]
        if not promoted:
            rows = len(read_table(self._ready(day.date) / TRAIN, [c.LABEL]))
            failed.append(HeldDay(day.date, rows, 1, tuple(last.decision.reasons)))
        if len(attempts) > 1:  # the days that waited spoiled a candidate
            tried = set(attempts[0].learned) - {day.date}
            reasons = attempts[0].decision.reasons
            failed += [_failure(held, *reasons) for held in state.waiting if held.date in tried]
        kept, gone = after_job(
            state.waiting, learned, failed, day.date, self.chosen.backlog_days, self.chosen.backlog_rows
        )
        outcome = Outcome(
            outcome="promoted" if promoted else "held",
            reasons=tuple(last.decision.reasons),
            rows_sha256=day.sha256,
            learned=tuple(learned),
            release=release,
        )
        values: dict[str, Any] = {
            "waiting": tuple(kept),
            "given_up": (*state.given_up, *gone),
            "finished": {**state.finished, day.date: outcome},
        }
        if promoted:
            fits = {day.date: fit, **waiting}
            live = Live(run=last.run, release=release, date=day.date)
            values |= self._promoted(state, live, {date: fits[date] for date in learned})
        return state.with_values(**values)

    def _promoted(self, state: JobState, live: Live, learned: Mapping[str, DayFit]) -> dict[str, Any]:
        """What changes in the state with a run that goes live; the learned days' samples are kept for replay."""
        new = [fit for fit in learned.values() if np.isfinite([fit.auc.value, fit.auc.error]).all()]
        for date in learned:
            self.replay.keep(date, read_table(self._ready(date) / VALIDATION))
        return {
            "promoted": (*state.promoted, live)[-self.chosen.keep_runs :],
            "fits": tuple(sorted([*state.fits, *new], key=lambda one: one.date)[-self.chosen.compared_days :]),
            "replayed": tuple(self.replay.chosen([*state.replayed, *learned])),
        }

    def _vocabularies(
        self, journal: DayJournal, rows: pa.Table, known: Mapping[str, Vocabulary]
    ) -> dict[str, Vocabulary]:
        """The growing vocabularies with the day's tokens, on disk in the work's folder; online ones give the numbers."""
        target = journal.folder / "vocabularies"
        if not target.exists():
            grown = self.delivery.numbered(self.scene.grown(rows, known), known)
            with atomic_folder(target) as folder:
                for vocabulary in grown.values():
                    vocabulary.save(folder)
        return {path.stem: Vocabulary.load(target, path.stem) for path in sorted(target.glob("*.json"))}

    def _made_ready(self, date: str, rows: pa.Table, vocabularies: Mapping[str, Vocabulary]) -> None:
        """Writes a day's ready rows, split."""
        target = self._ready(date)
        shutil.rmtree(target, ignore_errors=True)  # of a job that was killed, whose vocabularies may have been others
        train, validation = split_day(self.scene.ready(rows, vocabularies), self.chosen.validation_share)
        with atomic_folder(target) as folder:
            write_table(folder / TRAIN, train)
            write_table(folder / VALIDATION, validation)

    def _fit(self, state: JobState, date: str) -> DayFit:
        """The live model on all rows of a day that it has not learned from."""
        files = [self._ready(date) / name for name in (TRAIN, VALIDATION)]
        labels = np.concatenate([_labels(read_table(path, [c.LABEL])) for path in files])
        return fit_of(date, labels, self.scene.probabilities(self._run(state.live), files))

    def _looks_good(self, fit: DayFit, state: JobState) -> bool:
        if self.chosen.gate == "plain":
            return True
        return all(one.passed for one in unlike_the_others(fit, state.fits, self.chosen))

    def _head(self, state: JobState, day: ArchivedDay) -> dict[str, Any]:
        return {
            "rows_sha256": day.sha256,
            "live": state.live.model_dump(),
            "waiting": [held.date for held in state.waiting],
            "replayed": list(state.replayed),
            "scene": self.scene.fingerprint,
            "settings": digest(self.chosen.model_dump(mode="json")),
        }

    def _tidy(self, state: JobState) -> None:
        """Removes what nothing needs any more."""
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        _only(self.folder / "runs", {one.run for one in state.promoted})
        _only(self.folder / "ready", {*(held.date for held in state.waiting), *self._rehearsed(state)})
        self.replay.forget(state.replayed)

    def _finished_before(self, state: JobState, day: ArchivedDay) -> dict[str, Any]:
        if state.finished[day.date].rows_sha256 != day.sha256:
            raise DataError(f"{day.date}: was done with other rows than are archived now")
        self._tidy(state)
        return {"already": True, **self._result(state, day.date)}

    def _result(self, state: JobState, date: str) -> dict[str, Any]:
        outcome = state.finished[date]
        return {
            "date": date,
            "outcome": outcome.outcome,
            "reasons": list(outcome.reasons),
            "learned": list(outcome.learned),
            "report": str(self.folder / "report.html"),
            **self._shown(state),
        }

    def _shown(self, state: JobState) -> dict[str, Any]:
        return {
            "release": state.live.release,
            "run": state.live.run,
            "waiting": [held.date for held in state.waiting],
            "given_up": [f"{one.date}: {one.why}" for one in state.given_up],
        }

    def _run(self, live: Live) -> Path:
        return self.folder / "runs" / live.run

    def _ready(self, date: str) -> Path:
        return self.folder / "ready" / date

    def _written(self, path: Path, table: pa.Table) -> Path:
        write_table(path, table)
        return path

    def _alone(self, work: str) -> Any:
        return owned_lock(self.folder, "job", "is doing the daily job", work)


def _failure(held: HeldDay, *reasons: str) -> HeldDay:
    return HeldDay(held.date, held.rows, 1, reasons)


def _labels(table: pa.Table) -> np.ndarray:
    return table[c.LABEL].to_numpy().astype(np.float32)


def _only(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


class _timed:
    """Notes how long a block took."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = time.perf_counter() - self._started
