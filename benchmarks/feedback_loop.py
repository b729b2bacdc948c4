"""The loop closed: users with known tastes get lists, answer them, and the next day's model has learned from the answers.

    python benchmarks/feedback_loop.py

Two systems begin with the same release, made from a short log of the generator (offline/datasets/synthetic.py) that has no event
of a share of the users: they come new. Every day each user asks both for lists over HTTP (the application in this process, on
embedded stores) and answers as the generator's truth has it: takes what it would choose and rates it. Impressions and ratings are
posted as events; both systems count them at once in filters, histories and features. At night one of them, *learning*, archives
the events, makes the day's rows of them (offline/incremental), trains on the longer log and publishes; the other, *static*, keeps
its model. What a list is worth is known: how many of its items are taken, against the best list that the user could have been
shown (regret). Coverage is the share of the catalog that was shown.

`ok` says that every accepted event was archived once; whether learning pays is what the figures tell. A model that learns from its
own lists alone sees only what it chose to show: nothing here explores, and nothing corrects for it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
from benchmarks.support.simulated_users import SimulatedUsers
from benchmarks.support.stack import end_on_sigterm
from data_exchange_center import columns as c
from data_exchange_center.programs import run_program
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, read_table, write_table
from offline.datasets.synthetic import Truth, generate
from offline.figures import COLOURS, axes, save_figure
from offline.incremental.s0_event_days import make_day
from offline_to_online.publish import publish
from online.api.app import build_app
from online.api.runtime import Runtime
from online.main.s3_event_worker import work
from online.stores import embedded_redis
from online.stores.open import open_stores

SIZE = 10  # items of a list
DAY = 86_400
LAST_DAYS = 2  # that the closing figures are means of
# a short training, the same for both systems
TRAINING = {
    "recall.dimension": 16,
    "recall.epochs": 3,
    "rank.epochs": 2,
    "rank.batch_size": 512,
    "split.online_events": 3,
    "split.holdout": "none",
    "serve.budget_ms": 5000.0,
    "serve.suppress_impressions_hours": 24.0,
    "serve.prerank_size": 100,
    "recall.candidates": 100,
}


@dataclass
class Day:
    """What one system's lists of one day were worth."""

    got: float = 0.0
    best: float = 0.0
    lists: int = 0
    taken: int = 0
    events: int = 0
    shown: Counter[int] = field(default_factory=Counter)

    @property
    def regret(self) -> float:
        """Share of what the best lists would have had that was missed."""
        return 1.0 - self.got / self.best


@dataclass
class System:
    """One of the two recommenders.

    Attributes:
        met: user -> items that the user has met there.
        days: in their order.
    """

    name: str
    settings: Settings
    met: list[set[int]]
    days: list[Day] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[FlaskClient]:
        """The application on this system's stores and its live release."""
        runtime = Runtime(self.settings)
        runtime.open(open_stores)
        try:
            yield build_app(runtime).test_client()
        finally:
            runtime.close()

    def live_day(self, users: SimulatedUsers, start: int, lists: int, seed: int) -> None:
        """One day: every user asks for lists and answers them."""
        day = Day()
        self.days.append(day)
        with self.serving() as client:
            for turn in range(lists):
                for user in tqdm(range(len(self.met)), f"{self.name}, day {len(self.days)}", leave=False):
                    now = start + 3600 * (8 + 4 * turn) + user
                    # the same luck for both systems
                    luck = np.random.default_rng([seed, len(self.days), turn, user])
                    self._one_list(client, users, user, now, day, luck)

    def _one_list(
        self, client: FlaskClient, users: SimulatedUsers, user: int, now: int, day: Day, luck: np.random.Generator
    ) -> None:
        answer = client.post("/ml/rec", json={"userid": user + 1, "size": SIZE, "now": now}).get_json()
        shown = [item["itemid"] - 1 for item in answer["item_list"]]
        if answer["degraded"] or len(shown) != SIZE or self.met[user] & set(shown):
            raise RuntimeError(f"{self.name}: no proper list for user {user + 1}: {answer}")
        got, best = users.regret(user, shown, self.met[user])
        taken = users.answer(user, shown, luck)
        day.got, day.best, day.lists, day.taken = day.got + got, day.best + best, day.lists + 1, day.taken + len(taken)
        day.shown.update(shown)
        about = {"userid": user + 1, "request_id": answer["request_id"]}

        def event(kind: str, place: int, at: int, **more: Any) -> dict[str, Any]:
            name = f"{answer['request_id']}-{kind}-{place}"
            return {**about, "event_id": name, "itemid": shown[place] + 1, "event": kind, "timestamp": at, **more}

        events = [event("impression", place, now) for place in range(SIZE)]
        events += [event("rating", one.place, now + 30 + one.place, value=one.stars) for one in taken]
        accepted = client.post("/ml/events", json={"events": events}).get_json()["accepted"]
        if accepted != len(events):
            raise RuntimeError(f"{self.name}: {accepted} of {len(events)} events were accepted")
        day.events += accepted
        self.met[user].update(shown[one.place] for one in taken)


def write_log(
    folder: Path, users: int, items: int, events: int, newcomers: float, seed: int
) -> tuple[Path, pa.Table, Truth]:
    """A generated log as a user's own: its YAML, its interactions, and the truth behind it."""
    made = generate(users, items, events, seed)
    log = made.interactions.filter(pc.less_equal(made.interactions[c.USER_ID], users - int(newcomers * users)))
    terms = pa.array(["|".join(own) for own in made.items[c.TERMS].to_pylist()])
    place = made.items.schema.get_field_index(c.TERMS)
    write_table(folder / "items.parquet", made.items.set_column(place, c.TERMS, terms))
    write_table(folder / "users.parquet", made.users)
    write_table(folder / "log" / "0000.parquet", log.select([c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.RATING]))
    mapping = {
        "interactions": {
            "file": "log/*.parquet",
            "user": {"column": c.USER_ID},
            "item": {"column": c.ITEM_ID},
            "time": {"column": c.TIMESTAMP},
            "labels": {"kind": "rating", "column": c.RATING},
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
    return folder / "loop.yaml", log, Truth(**made.truth)


def learned(system: System, folder: Path, date: str, number: int) -> dict[str, Any]:
    """A night: the day's events become rows of the log, and a model that knows them goes live."""
    started = time.perf_counter()
    archived = work(system.settings, until_empty=True)
    day = make_day(system.settings, date)
    rows = read_table(Path(day["path"])).select([c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.RATING])
    write_table(folder / "log" / f"{number:04d}.parquet", rows)
    release = trained(system.settings)
    publish(system.settings, release)
    return {
        "archived": archived["archived"],
        "rows": day["rows"],
        "release": release,
        "seconds": round(time.perf_counter() - started, 1),
    }


def trained(settings: Settings) -> str:
    """Every offline stage, in a process of its own as at night; the release that it made."""
    release: str = run_program("offline/s0_run_offline.py", ["--quiet"], settings)["release"]
    return release


def simulate(
    users: int, items: int, events: int, newcomers: float, days: int, lists: int, seed: int, picture: Path | None
) -> dict[str, Any]:
    """The simulation, in a temporary folder.

    Args:
        events: that the generator makes, those of newcomers included.
        newcomers: share of the users of whom that log has no event.
        lists: that each user asks for on a day.
        picture: where the PNG goes.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-loop-")))
        mapping, log, truth = write_log(folder / "data", users, items, events, newcomers, seed)
        common = Settings().with_values(**{"data.dataset": str(mapping), "seed": seed, **TRAINING})
        rows = zip(log[c.USER_ID].to_pylist(), log[c.ITEM_ID].to_pylist(), strict=True)
        known: list[set[int]] = [set() for _ in range(users)]
        for user, item in rows:
            known[user - 1].add(item - 1)
        systems = [
            System(name, common.with_values(**{"data.store": str(folder / name)}), [set(own) for own in known])
            for name in ("learning", "static")
        ]
        learning, static = systems
        release = trained(learning.settings)
        Workspace(static.settings).root.mkdir()
        Workspace(static.settings).releases.symlink_to(Workspace(learning.settings).releases)
        for system in systems:
            opened.callback(embedded_redis.stop, Workspace(system.settings).online)
            publish(system.settings, release)
        people = SimulatedUsers.of(truth)
        first = (int(pc.max(log[c.TIMESTAMP]).as_py()) // DAY + 1) * DAY
        nights = []
        for number in range(days):
            start = first + number * DAY
            for system in systems:
                system.live_day(people, start, lists, seed)
            if number + 1 < days:
                date = datetime.fromtimestamp(start, UTC).date().isoformat()
                nights.append(learned(learning, folder / "data", date, number + 1))
    if picture is not None:
        draw(picture, systems, items)
    return result(
        systems,
        nights,
        items,
        {"users": users, "items": items, "events": len(log), "newcomers": newcomers, "lists_a_day": lists},
    )


def result(systems: list[System], nights: list[dict[str, Any]], items: int, sizes: dict[str, float]) -> dict[str, Any]:
    """The benchmark's JSON: figures of the last days, and every day's."""
    last = {system.name: system.days[-LAST_DAYS:] for system in systems}
    figures = {
        name: {
            "regret": round(1 - sum(day.got for day in days) / sum(day.best for day in days), 4),
            "expected_takes_a_list": round(sum(day.got for day in days) / sum(day.lists for day in days), 3),
            "taken_a_list": round(sum(day.taken for day in days) / sum(day.lists for day in days), 3),
            "coverage": round(len({item for day in days for item in day.shown}) / items, 4),
        }
        for name, days in last.items()
    }
    by_day = {
        system.name: {
            "regret": [round(day.regret, 4) for day in system.days],
            "coverage": [round(len(day.shown) / items, 4) for day in system.days],
        }
        for system in systems
    }
    return {
        "name": "feedback_loop",
        "machine": machine(),
        "ok": [night["archived"] for night in nights] == [day.events for day in systems[0].days[:-1]],
        **sizes,
        "days": len(systems[0].days),
        "ours": figures["learning"],
        "peer": figures["static"],
        "ratio": {"regret": round(figures["learning"]["regret"] / figures["static"]["regret"], 3)},
        "by_day": by_day,
        "nights": nights,
    }


def draw(path: Path, systems: list[System], items: int) -> None:
    """Regret and coverage over the days."""
    figure, chart = axes("Regret over the days", "day", "share of the best lists' takes that was missed")
    for system, colour in zip(systems, COLOURS, strict=False):
        numbers = range(1, len(system.days) + 1)
        chart.plot(
            numbers, [day.regret for day in system.days], color=colour, marker="o", label=f"{system.name}: regret"
        )
        coverage = [len(day.shown) / items for day in system.days]
        chart.plot(numbers, coverage, color=colour, linestyle=":", marker=".", label=f"{system.name}: coverage")
    chart.set_ylim(bottom=0)
    chart.legend(frameon=False, fontsize=8)
    save_figure(path, figure)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--users", type=int, default=200)
    arguments.add_argument("--items", type=int, default=300)
    arguments.add_argument(
        "--events", type=int, default=6000, help="that the generator makes; those of newcomers are left out"
    )
    arguments.add_argument("--newcomers", type=float, default=0.5, help="share of the users whom the log does not know")
    arguments.add_argument("--days", type=int, default=4)
    arguments.add_argument("--lists", type=int, default=2, help="that each user asks for on a day")
    arguments.add_argument("--picture", type=Path, help="PNG of regret and coverage over the days")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return simulate(
            parsed.users,
            parsed.items,
            parsed.events,
            parsed.newcomers,
            parsed.days,
            parsed.lists,
            settings.seed,
            parsed.picture,
        )

    run_step("feedback_loop", arguments, step, argv)


if __name__ == "__main__":
    main()
