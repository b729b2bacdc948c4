"""Publishes and rolls back under concurrent clients: no error, and no answer whose parts come from two releases.

    python benchmarks/atomic_release.py                    embedded stores
    python benchmarks/atomic_release.py --servers          real Redis, Elasticsearch, Feast on Redis, Triton

Each of a handful of releases carries its number in every part (support/marked_release.py): item ids, user and item vectors,
user and item features, the model's output. Clients ask with `explain`, so that every answer shows what each store returned for
it; the numbers found in its parts must be one number, that of the release that the answer names. The pointer proves nothing
here and is not asked.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from benchmarks.support.clients import Clients, Reply
from benchmarks.support.marked_release import make_marked_release, origins
from benchmarks.support.references import PATIENCE_MS
from benchmarks.support.stack import REAL, end_on_sigterm, marquee_server, stack
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.publish import publish, rollback
from tests.factories import make_settings

log = logging.getLogger("marquee.benchmark")

USERS, SIZE = 60, 10
PAUSE_S = 0.05  # of a client between two requests: the publisher shares the machine with them
PARTS = frozenset(
    ("release opened", "user store", "recall arrays", "item index", "user features", "item features", "scorer")
)


@dataclass
class Verdict:
    """What the answers showed; filled by several threads."""

    number_of: dict[str, int]
    requests: int = 0
    errors: int = 0
    mixed: int = 0
    whole: int = 0  # answers that show what every store returned for them
    degraded: int = 0
    examples: list[str] = field(default_factory=list)
    answers_by_release: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, reply: Reply) -> None:
        """Judges one answer."""
        problem, mixed = self.problem_of(reply)
        with self.lock:
            self.requests += 1
            self.mixed += mixed
            self.errors += bool(problem) and not mixed
            if reply.status == 200:
                self.degraded += bool(reply.body["degraded"])
                self.whole += not problem and not reply.body["degraded"]
                self.answers_by_release[reply.body["release"]] += 1
            if problem and len(self.examples) < 5:
                self.examples.append(problem)

    def problem_of(self, reply: Reply) -> tuple[str, bool]:
        """What is wrong with an answer ("" when nothing is), and whether it mixes releases."""
        if reply.status != 200:
            return f"status {reply.status}: {reply.error or reply.body}", False
        answer = reply.body
        if len(answer["item_list"]) != SIZE:
            return f"{len(answer['item_list'])} items instead of {SIZE}", False
        found = origins(answer)
        named = self.number_of[answer["release"]]
        strange = {part: sorted(numbers) for part, numbers in found.items() if numbers != {named}}
        if strange:
            return f"answer of release {named} with parts of others: {strange}", True
        missing = PARTS - found.keys()
        if missing and not answer["degraded"]:
            return f"an answer that does not show {sorted(missing)}", False
        return "", False


def flip_under_load(settings: Settings, flips: int, releases: int, clients: int) -> dict[str, Any]:
    """Makes the releases, serves, and flips; the settings name running stores."""
    made = [make_marked_release(settings, number) for number in range(releases)]
    verdict = Verdict({release.id: number for number, release in enumerate(made)})
    publish(settings, made[0].id)
    done: Counter[str] = Counter()

    def question(client: int, turn: int) -> dict[str, Any]:
        return {"userid": (client * 7 + turn) % USERS + 1, "size": SIZE, "explain": True}

    with marquee_server(settings) as url, Clients(url, clients, question, verdict.see, pause=PAUSE_S):
        following = 1
        for number in range(flips):
            if number % 3 == 2:
                result = rollback(settings)
                done["rollbacks"] += result["flipped"]
            else:
                result = publish(settings, made[following % releases].id)
                following += 1
                done["publishes"] += result["flipped"]
            log.info("%d of %d: %s is live; %d answers", number + 1, flips, result["release"], verdict.requests)
    for example in verdict.examples:
        log.error("%s", example)
    answered = len(verdict.answers_by_release)
    return {
        "ok": not verdict.errors and not verdict.mixed and verdict.whole > verdict.requests / 2 and answered > 1,
        "flips": sum(done.values()),
        **done,
        "requests": verdict.requests,
        "errors": verdict.errors,
        "mixed": verdict.mixed,
        "whole": verdict.whole,
        "degraded": verdict.degraded,
        "releases_answered_from": answered,
        "examples": verdict.examples,
    }


def atomic_release(flips: int, *, releases: int = 6, clients: int = 8, real: bool = False) -> dict[str, Any]:
    """The proof on stores of its own, in a temporary folder.

    Raises:
        Unavailable: `real`, and this machine lacks a server.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-atomic-")))
        # a busy machine must not make answers do without the parts that they are judged by
        patient = make_settings(folder, **{"serve.budget_ms": PATIENCE_MS})
        running = opened.enter_context(stack(patient, folder, REAL if real else ()))
        result = flip_under_load(running.settings, flips, releases, clients)
    return {
        "name": "atomic_release",
        "machine": machine(),
        "stores": "real servers" if real else "embedded",
        "clients": clients,
        **result,
    }


def main(argv: list[str] | None = None) -> None:
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--flips", type=int, default=60, help="publishes and rollbacks")
    arguments.add_argument("--clients", type=int, default=8, help="concurrent HTTP clients")
    arguments.add_argument("--servers", action="store_true", help="on the real servers")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return atomic_release(parsed.flips, clients=parsed.clients, real=parsed.servers)

    run_step("atomic_release", arguments, step, argv)


if __name__ == "__main__":
    main()
