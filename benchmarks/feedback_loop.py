"""The loop closed: users with known tastes get lists, answer them, and the next day's model has learned from the answers.

    python benchmarks/feedback_loop.py                                   a world that moves: tastes turn, items appear
    python benchmarks/feedback_loop.py --drift 0 --new-items 0           one that stands still

Three systems begin with the same release, made by the daily job's first training on a short log of impressions: lists by popularity
that users answered, with no event of a share of the users, who come new. Every day each user asks every system for lists over HTTP
(the application in this process, on embedded stores) and answers as the truth has it (support/simulated_users.py). Impressions and
clicks are posted as events; every system counts them at once in filters and histories. At night

    static      does nothing
    learning    archives the events, makes the day's rows of them (impressions as negatives), does the daily job and publishes
    exploring   the same, and gives a share of its lists' places to items that it is less sure of (serve.explore_share)

What a list is worth is known: how many of its items are taken by who looks at all of it. *Regret* is the share of the best list's
worth that was missed, over all days after the first (on which all answer alike, but for what is explored); a list of random items
bounds it from above. *Coverage* is the share of the items that could be shown that were. Differences are paired by seed.

`ok` says that every accepted event was archived once; whether learning pays is what the figures tell. The gate is open wide here
(`TRAINING`): the first lists of a model are unlike the log before it, and what the gate is worth benchmarks/daily.py measures.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from flask.testing import FlaskClient
from tqdm import tqdm

from benchmarks.common import machine
from benchmarks.support.simulated_users import World, taken_of, worth_of
from benchmarks.support.stack import end_on_sigterm
from data_exchange_center import columns as c
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, read_table, write_table
from offline.datasets.registry import load_dataset
from offline.datasets.synthetic import START, Truth, generate
from offline.figures import COLOURS, axes, save_figure
from offline.incremental.chain_scene import ChainScene
from offline.incremental.delivery import Released
from offline.incremental.job import DailyJob
from offline.incremental.s0_event_days import make_day
from offline_to_online.publish import publish
from online.api.app import build_app
from online.api.runtime import Runtime
from online.main.s3_event_worker import work
from online.stores import embedded_redis
from online.stores.open import open_stores

log = logging.getLogger("marquee")

SIZE = 10  # items of a list
DAY = 86_400
LOG_DAYS = 30  # over which the lists of the first log are spread
FIRST = (START // DAY + LOG_DAYS + 1) * DAY  # the first day's midnight
# a short training, the same for every system
TRAINING = {
    "features.spec": str(Path(__file__).parent / "support" / "loop.yaml"),
    "recall.dimension": 16,
    "recall.epochs": 3,
    "recall.candidates": 100,
    "rank.epochs": 3,
    "rank.batch_size": 512,
    "split.online_events": 3,
    "serve.budget_ms": 120_000.0,  # values are judged here, not speed
    "serve.suppress_impressions_hours": 24.0,
    "serve.prerank_size": 100,
    "incremental.publish": False,  # this process does it
    "incremental.spread_between_days": 1.0,
    "incremental.auc_margin": 1.0,
    "incremental.logloss_margin": 10.0,
    "incremental.segment_margin": 1.0,
    "incremental.resamples": 50,
    "incremental.epochs": 3,
    "incremental.learning_rate": 1.0,
}
EXPLORING = {"serve.explore_share": 0.2, "serve.explore_bonus": 2.0, "serve.explore_temperature": 0.5}
SYSTEMS: dict[str, dict[str, float]] = {"static": {}, "learning": {}, "exploring": EXPLORING}


@dataclass(frozen=True)
class Sizes:
    """Of a simulation.

    Attributes:
        log_lists: lists that each user of the first log was shown in it. newcomers: share of the users of whom it has none.
        drift: radians a day. new_items: share of the catalog that appears on later days.
        lists: that each user asks for on a day.
    """

    users: int
    items: int
    log_lists: int
    newcomers: float
    drift: float
    new_items: float
    days: int
    lists: int


@dataclass
class Day:
    """What one system's lists of one day were worth."""

    got: float = 0.0
    best: float = 0.0
    random: float = 0.0
    lists: int = 0
    taken: int = 0
    events: int = 0
    could: int = 0
    shown: Counter[int] = field(default_factory=Counter)

    @property
    def regret(self) -> float:
        """Share of the best lists' worth that was missed."""
        return 1.0 - self.got / self.best


@dataclass
class System:
    """One of the recommenders.

    Attributes:
        met: user -> items that the user has taken there.
        days: in their order. nights: what came of each.
    """

    name: str
    settings: Settings
    met: list[set[int]]
    days: list[Day] = field(default_factory=list)
    nights: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[FlaskClient]:
        """The application on this system's stores and its live release."""
        runtime = Runtime(self.settings)
        runtime.open(open_stores)
        try:
            yield build_app(runtime).test_client()
        finally:
            runtime.close()

    def live_day(self, world: World, lists: int, seed: int) -> None:
        """One day: every user asks for lists and answers them."""
        number, day = len(self.days), Day()
        takes, hidden = world.takes(number + 1), world.hidden(number)
        day.could = len(world.appears) - len(hidden)
        self.days.append(day)
        with self.serving() as client:
            for turn in range(lists):
                for user in tqdm(range(len(self.met)), f"{self.name}, day {number + 1}", leave=False):
                    now = FIRST + number * DAY + 3600 * (8 + 4 * turn) + user
                    luck = np.random.default_rng([seed, number, turn, user])  # the same for every system
                    self._one_list(client, takes[user], hidden, user, now, day, luck)

    def _one_list(
        self,
        client: FlaskClient,
        takes: np.ndarray,
        hidden: list[int],
        user: int,
        now: int,
        day: Day,
        luck: np.random.Generator,
    ) -> None:
        # a first release does not know the newest part of its log, which picked its epoch: who asks says what was taken there
        out = sorted({*hidden, *self.met[user]})
        body = {"userid": user + 1, "size": SIZE, "now": now, "exclude": [item + 1 for item in out]}
        # what exploration draws follows the request id, which names the moment: a run can be repeated
        answer = client.post("/ml/rec", json=body, headers={"X-Request-ID": f"{now}-{user}"}).get_json()
        shown = [item["itemid"] - 1 for item in answer["item_list"]]
        if answer["degraded"] or len(shown) != SIZE or set(out) & set(shown):
            raise RuntimeError(f"{self.name}: no proper list for user {user + 1}: {answer}")
        worth, taken = worth_of(takes, shown, out), taken_of(takes, shown, luck)
        day.got, day.best, day.random = day.got + worth.got, day.best + worth.best, day.random + worth.random
        day.lists, day.taken = day.lists + 1, day.taken + len(taken)
        day.shown.update(shown)
        about = {"userid": user + 1, "request_id": answer["request_id"]}

        def event(kind: str, place: int, at: int) -> dict[str, Any]:
            name = f"{answer['request_id']}-{kind}-{place}"
            return {**about, "event_id": name, "itemid": shown[place] + 1, "event": kind, "timestamp": at}

        events = [event("impression", place, now) for place in range(SIZE)]
        events += [event("click", place, now + 30 + place) for place in taken]
        accepted = client.post("/ml/events", json={"events": events}).get_json()["accepted"]
        if accepted != len(events):
            raise RuntimeError(f"{self.name}: {accepted} of {len(events)} events were accepted")
        day.events += accepted
        self.met[user].update(shown[place] for place in taken)

    def night(self, job: DailyJob) -> None:
        """The day's events become rows, and a model that has learned from them goes live."""
        started, spent = time.perf_counter(), time.process_time()
        archived = work(self.settings, until_empty=True)["archived"]
        date = datetime.fromtimestamp(FIRST + (len(self.days) - 1) * DAY, UTC).date().isoformat()
        rows = make_day(self.settings, date)["rows"]
        result = job.run(date)
        if result["outcome"] == "promoted":
            publish(self.settings, result["release"])
        self.nights.append(
            {
                "archived": archived,
                "rows": rows,
                "outcome": result["outcome"],
                "seconds": round(time.perf_counter() - started, 1),
                "cpu_seconds": round(time.process_time() - spent, 1),
            }
        )


def first_log(world: World, sizes: Sizes, seed: int) -> pa.Table:
    """Lists by popularity and chance that users were shown and answered, before anything was learned."""
    random, takes = np.random.default_rng([seed, 11]), world.takes(0)
    weight = np.where(world.appears > 0, -np.inf, world.truth.popularity)
    rows: list[tuple[int, int, int, int]] = []
    for user in range(sizes.users - int(sizes.newcomers * sizes.users)):
        met: set[int] = set()
        for at in np.sort(random.integers(START, FIRST - DAY, sizes.log_lists)):
            drawn = np.argsort(-(weight + random.gumbel(size=len(weight))))
            shown = [item for item in drawn.tolist() if item not in met][:SIZE]
            taken = taken_of(takes[user], shown, random)
            rows += [(user + 1, item + 1, int(at), int(place in taken)) for place, item in enumerate(shown)]
            met.update(shown[place] for place in taken)
    users, items, times, labels = (pa.array(column) for column in zip(*rows, strict=True))
    return pa.table({c.USER_ID: users, c.ITEM_ID: items, c.TIMESTAMP: times, c.LABEL: labels})


def write_log(folder: Path, log: pa.Table, users: pa.Table, items: pa.Table) -> Path:
    """The log as a user's own: its YAML and its tables."""
    terms = pa.array(["|".join(own) for own in items[c.TERMS].to_pylist()])
    write_table(folder / "items.parquet", items.set_column(items.schema.get_field_index(c.TERMS), c.TERMS, terms))
    write_table(folder / "users.parquet", users)
    write_table(folder / "log.parquet", log)
    mapping = {
        "interactions": {
            "file": "log.parquet",
            "user": {"column": c.USER_ID},
            "item": {"column": c.ITEM_ID},
            "time": {"column": c.TIMESTAMP},
            "labels": {"kind": "outcome", "column": c.LABEL},
        },
        "items": {
            "file": "items.parquet",
            "id": c.ITEM_ID,
            "title": c.TITLE,
            "terms": {"column": c.TERMS, "separator": "|"},
            "year": c.YEAR,
        },
        "users": {
            "file": "users.parquet",
            "id": c.USER_ID,
            "attributes": {"gender": "string", "age": "int64", "occupation": "string"},
        },
    }
    (folder / "loop.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return folder / "loop.yaml"


def daily_job(settings: Settings) -> DailyJob:
    """The daily job as s2_daily_job.py makes it, without its report."""
    return DailyJob(settings, ChainScene(settings), Released(settings), reports=False)


def first_release(settings: Settings, history: Path) -> str:
    """The first training, from which every system begins."""
    load_dataset(settings)
    write_table(history, read_table(Workspace(settings).tables / "interactions.parquet"))
    release: str = daily_job(settings).first(history)["release"]
    return release


def simulate(sizes: Sizes, seed: int, own: dict[str, Any]) -> dict[str, Any]:
    """One seed, in a temporary folder: what each system's days were worth, and its nights.

    Args:
        own: settings that differ from `TRAINING`.
    """
    made = generate(sizes.users, sizes.items, sizes.users * 5, seed)  # its events are not used
    world = World.of(
        Truth(**made.truth), drift=sizes.drift, new_items=sizes.new_items, days=max(1, sizes.days - 2), seed=seed
    )
    shown = first_log(world, sizes, seed)
    known: list[set[int]] = [set() for _ in range(sizes.users)]
    for user, item, label in zip(*(shown[name].to_pylist() for name in (c.USER_ID, c.ITEM_ID, c.LABEL)), strict=True):
        if label:
            known[user - 1].add(item - 1)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-loop-")))
        mapping = write_log(folder / "data", shown, made.users, made.items)
        common = Settings().with_values(**{"data.dataset": str(mapping), "seed": seed, **TRAINING, **own})
        release = first_release(common.with_values(**{"data.store": str(folder / "first")}), folder / "history.parquet")
        systems, jobs = [], []
        for name, values in SYSTEMS.items():
            shutil.copytree(folder / "first", folder / name)
            settings = common.with_values(**{"data.store": str(folder / name), **values})
            opened.callback(embedded_redis.stop, Workspace(settings).online)
            publish(settings, release)
            systems.append(System(name, settings, [set(one) for one in known]))
            jobs.append(daily_job(settings))
        for number in range(sizes.days):
            for system, job in zip(systems, jobs, strict=True):
                system.live_day(world, sizes.lists, seed)
                log.info("seed %d, day %d, %s: regret %.4f", seed, number + 1, system.name, system.days[-1].regret)
                if system.name != "static" and number + 1 < sizes.days:
                    system.night(job)
                    log.info("seed %d, night %d, %s: %s", seed, number + 1, system.name, system.nights[-1])
    return {
        "seed": seed,
        "log": {"rows": len(shown), "positives": int(pc.sum(shown[c.LABEL]).as_py())},
        "ok": all(
            [night["archived"] for night in system.nights] == [day.events for day in system.days[: len(system.nights)]]
            for system in systems
        ),
        "systems": {system.name: _figures(system) for system in systems},
    }


def _figures(system: System) -> dict[str, Any]:
    after = system.days[1:]
    best = sum(day.best for day in after)
    return {
        "regret": 1 - sum(day.got for day in after) / best,
        "random_regret": 1 - sum(day.random for day in after) / best,
        "expected_takes_a_list": sum(day.got for day in after) / sum(day.lists for day in after),
        "coverage": len({item for day in after for item in day.shown}) / max(day.could for day in after),
        "regret_by_day": [round(day.regret, 4) for day in system.days],
        "coverage_by_day": [round(len(day.shown) / day.could, 4) for day in system.days],
        "nights": system.nights,
    }


def result(sizes: Sizes, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The benchmark's JSON: mean and standard deviation over seeds, differences to `static` by seed with their 95 % t interval."""

    def over(name: str, metric: str) -> np.ndarray:
        return np.array([run["systems"][name][metric] for run in runs])

    metrics = ("regret", "expected_takes_a_list", "coverage")
    figures = {name: {metric: _spread(over(name, metric)) for metric in metrics} for name in SYSTEMS}
    minus = {
        name: {metric: _spread(over(name, metric) - over("static", metric)) for metric in metrics}
        for name in SYSTEMS
        if name != "static"
    }
    return {
        "name": "feedback_loop",
        "machine": machine(),
        "ok": all(run["ok"] for run in runs),
        **asdict(sizes),
        "seeds": len(runs),
        "ours": figures["exploring"],
        "peer": figures["static"],
        "systems": figures,
        "random": _spread(over("static", "random_regret")),
        "minus_static": minus,
        "runs": list(runs),
    }


T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def _spread(values: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation and, of several seeds, the 95 % interval of the mean."""
    found = {"mean": round(float(values.mean()), 4)}
    if (many := len(values)) > 1:
        half = float(T_975.get(many, 2.2) * values.std(ddof=1) / np.sqrt(many))
        found |= {
            "sd": round(float(values.std(ddof=1)), 4),
            "low": round(found["mean"] - half, 4),
            "high": round(found["mean"] + half, 4),
        }
    return found


def draw(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Regret and coverage over the days, means over seeds."""
    figure, chart = axes("Regret and coverage over the days", "day", "regret; share of items shown")
    for name, colour in zip(SYSTEMS, COLOURS, strict=False):
        for metric, style in (("regret", {"marker": "o"}), ("coverage", {"linestyle": ":", "marker": "."})):
            values = np.mean([run["systems"][name][f"{metric}_by_day"] for run in runs], axis=0)
            chart.plot(range(1, len(values) + 1), values, color=colour, label=f"{name}: {metric}", **style)
    chart.set_ylim(bottom=0)
    chart.set_xticks(range(1, len(runs[0]["systems"]["static"]["regret_by_day"]) + 1))
    chart.legend(frameon=False, fontsize=8)
    save_figure(path, figure)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--users", type=int, default=150)
    arguments.add_argument("--items", type=int, default=240)
    arguments.add_argument("--log-lists", type=int, default=6, help="that each known user was shown in the first log")
    arguments.add_argument("--newcomers", type=float, default=0.3, help="share of the users whom the log does not know")
    arguments.add_argument("--drift", type=float, default=0.15, help="radians by which tastes turn a day")
    arguments.add_argument("--new-items", type=float, default=0.25, help="share of the items that appear later")
    arguments.add_argument("--days", type=int, default=5)
    arguments.add_argument("--lists", type=int, default=2, help="that each user asks for on a day")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--processes", type=int, default=1, help="seeds that run at once")
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all systems")
    arguments.add_argument("--picture", type=Path, help="PNG of regret and coverage over the days")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        sizes = Sizes(**{name: getattr(parsed, name) for name in Sizes.__dataclass_fields__})
        own = dict(one.split("=", 1) for one in parsed.set)
        seeds = range(settings.seed, settings.seed + parsed.seeds)
        if parsed.processes > 1:
            with ProcessPoolExecutor(parsed.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
                runs = list(pool.map(simulate, *zip(*((sizes, seed, own) for seed in seeds), strict=True)))
        else:
            runs = [simulate(sizes, seed, own) for seed in seeds]
        if parsed.picture is not None:
            draw(parsed.picture, runs)
        return result(sizes, runs)

    run_step("feedback_loop", arguments, step, argv)


if __name__ == "__main__":
    main()
