"""MovieLens (or another log of interactions) day by day: what the daily job costs and keeps, against two ways to do without it.

    python benchmarks/daily_chain.py --data ml-100k      a local copy; MARQUEE_TEST_DATA names the folder around it
    python benchmarks/daily_chain.py                     without either: a generated log
    python benchmarks/daily_chain.py --days 3            fewer days (a day with few events is learned with the ones after it)

Progressive validation: a day's events are scored by what was live before the day and has not learned from it: the ranker's
`like` (AUC, GAUC, logloss) and, for users who had a history, the merged recall list (recall@50 of what they liked that day).
Features are as of each event and the same for all three, so that what differs is what was learned:

    never updated    the first training, on everything before the first day
    incremental      offline/incremental: the day's job with its gate, from the checkpoint of the day before
    full retrain     all stages anew on everything before the day, with the same settings

Means are over days, with intervals by resampling days, paired against `never updated`. Cost is CPU time per day without export and
publishing, which are the same for both; the full retrain's share that searches for the number of epochs is shown apart.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from benchmarks.common import report
from data_exchange_center import columns as c
from data_exchange_center.list_metrics import per_user
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, read_json, read_table, write_table
from offline.datasets.registry import load_dataset
from offline.figures import COLOURS, axes, save_figure
from offline.incremental.chain_log import dates_of
from offline.incremental.chain_scene import CUT, ChainScene
from offline.incremental.delivery import Nowhere
from offline.incremental.job import DailyJob
from offline.incremental.state import load_state
from offline.rank.s2_model_train import TRAINING_FILE
from offline.rank.text_table import markdown_table, number
from offline.recall.candidates_for_ranking import recall_candidates
from offline.training.bootstrap import Interval, bootstrapped, interval, paired
from offline.training.metrics import click_metrics

MODELS = ("never updated", "incremental", "full retrain")
METRICS = ("auc", "gauc", "logloss")
SHOWN = 50
PATIENCE_S = 1800.0  # of one retraining


class Remembering(ChainScene):
    """Keeps the ready rows that the job has asked for last."""

    asked: pa.Table

    def ready(self, rows: pa.Table, vocabularies: Any) -> pa.Table:
        self.asked = super().ready(rows, vocabularies)
        return self.asked


@dataclass
class Story:
    """What was measured: model -> metric of each day, recall of each user, CPU seconds of each day; and the job's outcomes."""

    dates: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    quality: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {name: [] for name in MODELS})
    recall: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in MODELS})
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MODELS})
    search: list[float] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)


def settings_for(store: Path, data: str, seed: int, **values: Any) -> Settings:
    """The defaults, on a store of its own; every run of the job is kept."""
    chosen = {"data.dataset": "ml-100k", "data.source": data} if data else {"data.dataset": "synthetic"}
    own = {"data.store": str(store), "seed": seed, "incremental.keep_runs": 1000, "incremental.validation_share": 0.1}
    return Settings().with_values(**{**own, **chosen, **values})


def days_of(events: pa.Table, least: int, days: int) -> tuple[pa.Table, list[tuple[str, pa.Table]]]:
    """The history, and the newest days with the date of each; a day with fewer events is joined to the ones after it."""
    dates = dates_of(events[c.TIMESTAMP].to_numpy())
    names, counts = np.unique(dates, return_counts=True)
    last, collected = dict[str, str](), list[str]()
    for name in names:
        collected.append(str(name))
        if sum(counts[np.searchsorted(names, collected)]) >= least or name == names[-1]:
            last |= dict.fromkeys(collected, str(name))
            collected = []
    ends = np.array([last[str(name)] for name in names])[np.searchsorted(names, dates)]
    newest = np.unique(ends)[-days:]
    chosen = [(str(name), events.filter(pa.array(ends == name))) for name in newest]
    return events.filter(pa.array(ends < newest[0])), chosen


def retrained(settings: Settings, events: Path, run: Path) -> dict[str, float]:
    """Every stage on these events, in a process of its own; CPU seconds without export, and of the search for epochs."""
    scene, started = ChainScene(settings), time.process_time()
    known = scene.log.as_events(read_table(events))
    scene.learned_anew(known, known.slice(0, 0), run)
    spent = time.process_time() - started
    parts = read_json(Workspace(scene.workspace_of(run)).rank / TRAINING_FILE)["seconds_by_part"]
    return {"seconds": spent - parts["export"], "search": parts["plan"] + parts["judged"]}


def told(settings: Settings, folder: Path, least: int, days: int, retrains: bool, processes: int) -> Story:
    """Runs everything; retrainings run beside the job."""
    load_dataset(settings)
    history, blocks = days_of(read_table(Workspace(settings).tables / "interactions.parquet"), least, days)
    scene = Remembering(settings)
    job, story = DailyJob(settings, scene, Nowhere(), reports=False), Story()
    runs = job.folder / "runs"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures: list[Future[dict[str, float]]] = []
        known = [history]
        for number_of_day, (date, rows) in enumerate(blocks):
            if retrains:
                before = folder / "retrain" / f"before-{date}.parquet"
                write_table(before, pa.concat_tables(known))
                futures.append(pool.submit(retrained, settings, before, folder / "retrain" / str(number_of_day)))
            known.append(rows)
        first = folder / "history.parquet"
        write_table(first, history)
        job.first(first)
        judged = []
        for date, rows in tqdm(blocks, desc="days of the job", unit="day"):
            given = folder / "given" / f"{date}.parquet"
            write_table(given, rows)
            live, started = runs / load_state(job.folder).live.run, time.process_time()
            story.outcomes.append(job.run(date, given)["outcome"])
            story.seconds["incremental"].append(time.process_time() - started)
            ready = folder / "asked" / f"{date}.parquet"
            write_table(ready, scene.asked)
            story.dates.append(date)
            story.rows.append(len(scene.asked))
            judged.append((ready, live))
        for number_of_day, (ready, live) in enumerate(judged):
            found = {"never updated": runs / "first", "incremental": live}
            if retrains:
                spent = futures[number_of_day].result(PATIENCE_S)
                story.seconds["full retrain"].append(spent["seconds"])
                story.search.append(spent["search"])
                found["full retrain"] = folder / "retrain" / str(number_of_day)
            table = read_table(ready)
            asked = returning(scene, live, table)
            for name, run in found.items():
                labels, users = (
                    table[c.LABEL].to_numpy(),
                    pc.dictionary_encode(table[c.USER_ID]).combine_chunks().indices,
                )
                story.quality[name].append(click_metrics(labels, scene.probabilities(run, [ready]), users.to_numpy()))
                story.recall[name].append(recall_of(scene, run, asked))
            shutil.rmtree(folder / "retrain" / str(number_of_day), ignore_errors=True)
    story.seconds["never updated"] = [0.0] * len(blocks)
    return story


def returning(scene: ChainScene, live: Path, rows: pa.Table) -> pa.Table:
    """What users with a history liked: user_id and item_id."""
    known = read_table(Workspace(scene.workspace_of(live)).tables / "users.parquet")[c.USER_ID].combine_chunks()
    liked = rows.filter(pc.equal(rows[c.LABEL], 1)).select([c.USER_ID, c.ITEM_ID])
    return liked.filter(pc.is_in(liked[c.USER_ID], value_set=known))


def recall_of(scene: ChainScene, run: Path, liked: pa.Table) -> np.ndarray:
    """recall@50 of each user by a run's merged list; who is unknown to the run gets what most people like. float64 [users]."""
    own = scene.workspace_of(run)
    workspace = Workspace(own)
    known = read_table(workspace.snapshot(CUT) / "users.parquet")[c.USER_ID].combine_chunks()
    users = pc.unique(liked[c.USER_ID])
    lists = {user: list[Any]() for user in users.to_pylist()}
    found = recall_candidates(own, CUT, SHOWN, users.filter(pc.is_in(users, value_set=known)))
    for user, item in zip(found[c.USER_ID].to_pylist(), found[c.ITEM_ID].to_pylist(), strict=True):
        lists[user].append(item)
    events = read_table(workspace.split / "interactions.parquet", [c.ITEM_ID, c.LABEL])
    counts = events.filter(pc.equal(events[c.LABEL], 1))[c.ITEM_ID].value_counts()
    popular = counts.field("values").take(pc.sort_indices(counts.field("counts"), sort_keys=[("", "descending")]))[
        :SHOWN
    ]
    wanted: dict[Any, list[Any]] = {}
    for user, item in zip(liked[c.USER_ID].to_pylist(), liked[c.ITEM_ID].to_pylist(), strict=True):
        wanted.setdefault(user, []).append(item)
    pairs = [(np.array(lists[user] or popular.to_pylist()), np.array(items)) for user, items in wanted.items()]
    return per_user(pairs, (SHOWN,), SHOWN)[f"r{SHOWN}"]


def compared(story: Story) -> dict[str, dict[str, Any]]:
    """Model -> metric -> interval over the days, and `<metric>_gain`: minus the model that is never updated."""
    found: dict[str, dict[str, Any]] = {}
    present = [name for name in MODELS if story.quality[name]]
    series = {
        metric: {name: np.array([day[metric] for day in story.quality[name]]) for name in present} for metric in METRICS
    }
    series["recall50"] = {name: np.concatenate(story.recall[name]) for name in present}
    for metric, values in series.items():
        drawn = bootstrapped([_mean(values[name]) for name in present], len(values[present[0]]))
        for place, name in enumerate(present):
            own = found.setdefault(name, {"cpu_seconds_a_day": float(np.mean(story.seconds[name]))})
            own[metric] = interval(drawn[place])
            own[f"{metric}_gain"] = paired(drawn[place], drawn[0])
    return found


def _mean(values: np.ndarray) -> Any:
    there = np.isfinite(values)
    return lambda weights: (weights[:, there] @ values[there]) / weights[:, there].sum(1)


def table_of(found: dict[str, dict[str, Any]], story: Story) -> str:
    """One line a model."""

    def shown(one: Interval, gain: Interval, first: bool) -> str:
        return (
            number(one.value)
            if first
            else f"{number(one.value)} ({gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}])"
        )

    lines = []
    for name, values in found.items():
        cells = [shown(values[one], values[f"{one}_gain"], name == MODELS[0]) for one in (*METRICS, "recall50")]
        lines.append([name, *cells, f"{values['cpu_seconds_a_day']:.1f}"])
    header = ["", "AUC", "GAUC", "logloss", f"recall@{SHOWN} of returning users", "CPU s a day"]
    days = f"{len(story.dates)} days from {story.dates[0]} to {story.dates[-1]}, {sum(story.rows)} events"
    return (
        f"{days}; job: {story.outcomes.count('promoted')} promoted, {story.outcomes.count('held')} held\n\n"
        + markdown_table(header, lines)
    )


def drawn(story: Story, path: Path) -> None:
    """AUC of each day, by model."""
    figure, chart = axes("Each day scored by what was live before it", "", "AUC of like")
    for name, colour in zip(MODELS, COLOURS, strict=False):
        if story.quality[name]:
            chart.plot(story.dates, [day["auc"] for day in story.quality[name]], marker="o", label=name, color=colour)
    chart.tick_params(axis="x", rotation=45)
    chart.legend(frameon=False, fontsize=9)
    save_figure(path, figure)


def share_closed(found: dict[str, dict[str, Any]], metric: str) -> float | None:
    """How much of the way from never updated to the full retrain the job goes."""
    if MODELS[2] not in found:
        return None
    gap, way = (found[name][f"{metric}_gain"].value for name in (MODELS[2], MODELS[1]))
    return round(way / gap, 3) if gap else None


def measure(arguments: argparse.Namespace) -> None:
    """The benchmark."""
    with tempfile.TemporaryDirectory(prefix="daily-chain-") as place:
        folder = Path(place)
        settings = settings_for(folder / "store", arguments.data, arguments.seed, **_pairs(arguments.set))
        story = told(
            settings, folder, arguments.least, arguments.days, not arguments.without_retrain, arguments.processes
        )
    found = compared(story)
    print(table_of(found, story), file=sys.stderr)
    if arguments.figure:
        drawn(story, arguments.figure)
    plain = {name: {key: _plain(one) for key, one in values.items()} for name, values in found.items()}
    costs = {name: values["cpu_seconds_a_day"] for name, values in found.items()}
    ratio = {
        "share_of_auc_gap_closed": share_closed(found, "auc"),
        "share_of_logloss_gap_closed": share_closed(found, "logloss"),
    }
    if MODELS[2] in costs:
        ratio["cost_of_full_retrain"] = round(costs[MODELS[1]] / costs[MODELS[2]], 3)
        ratio["cost_of_full_retrain_without_search"] = round(
            costs[MODELS[1]] / (costs[MODELS[2]] - float(np.mean(story.search))), 3
        )
    report(
        "daily_chain",
        plain.pop("incremental"),
        plain,
        ratio,
        dataset=settings.dataset_name,
        days=story.dates,
        events=story.rows,
        outcomes=story.outcomes,
        seed=arguments.seed,
    )


def _plain(one: Interval | float) -> Any:
    if isinstance(one, Interval):
        return {name: round(value, 5) for name, value in one.to_json().items()}
    return round(one, 2)


def _pairs(given: Sequence[str]) -> dict[str, str]:
    return dict(one.split("=", 1) for one in given)


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    around = os.environ.get("MARQUEE_TEST_DATA", "")
    known = Path(around) / "ml-100k" if around else None
    options.add_argument("--data", default=str(known) if known and known.exists() else "", help="folder of ML-100K")
    options.add_argument("--days", type=int, default=8, choices=range(1, 61), metavar="N", help="newest days, 1 to 60")
    options.add_argument("--least", type=int, default=1000, help="events of a day; fewer are learned with the next one")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=2, choices=range(1, 9), help="that retrain beside the job")
    options.add_argument("--without-retrain", action="store_true", help="leave the full retrain out")
    options.add_argument("--figure", type=Path, help="PNG of AUC over the days")
    options.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that differ")
    arguments = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    measure(arguments)


if __name__ == "__main__":
    main()
