"""Puts eight kinds of skew between training and serving into a store; the consistency check must catch and name each.

    python benchmarks/skew.py             on a release trained on generated data (a few minutes, most of them training)
    python benchmarks/skew.py --tiny      on a release without training

Each skew is real: a copy of the release is altered and written into one of the stores that a server answers from, under the id
of the true release, which stays on disk as it was. Then the check of `make check` runs, and must fail and name the feature or
the component. Before that it runs on unaltered stores, each time with other requests, and must not raise an alarm.
"""

from __future__ import annotations

import argparse
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.common import machine
from benchmarks.support.altered_release import (
    Change,
    altered_copy,
    with_column,
    with_other_weights,
    with_vectors,
    with_vocabulary_shifted,
)
from benchmarks.support.references import offline_score, reference_release
from benchmarks.support.stack import end_on_sigterm
from data_exchange_center.feature_spec import Feature
from data_exchange_center.release import Release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace
from offline_to_online.publish import publish
from offline_to_online.rank.comparison import MODEL, Findings, Score
from offline_to_online.rank.parity_requests import ParityRequest
from offline_to_online.rank.s3_check_offline_and_online import compare
from online.api.app import build_app
from online.api.runtime import Runtime
from online.stores import embedded_redis
from online.stores.open import open_features, open_items, open_scorer, open_stores

log = logging.getLogger("marquee.benchmark")

CLEAN_RUNS = 20
HOURS = 3600
OPENERS: dict[str, Callable[[Settings], Any]] = {"items": open_items, "features": open_features, "scorer": open_scorer}


@dataclass(frozen=True)
class Skew:
    """One kind of skew: the port whose store goes astray, how, and what the check may call it."""

    name: str
    port: str
    change: Change
    names: frozenset[str]


def skews(release: Release) -> list[Skew]:
    """The eight, for the features that this release declares."""
    spec = release.spec()
    user = first(spec.user_features, "float32")
    item = windowed(spec.item_features) or first(spec.item_features, "float32")
    stamp = next(feature for feature in spec.user_features if feature.name.endswith("timestamp"))
    return [
        Skew("stale user features", "features", stale(user, stamp), frozenset({user.name, stamp.name})),
        Skew("shifted window", "features", on_items(item, shifted_window), frozenset({item.name})),
        Skew("default for missing changed", "features", on_users(user, other_default(user)), frozenset({user.name})),
        Skew("vocabulary off by one", "scorer", with_vocabulary_shifted, frozenset({MODEL})),
        Skew("scaling twice", "features", on_users(user, scaled), frozenset({user.name})),
        Skew("wrong model version", "scorer", with_other_weights, frozenset({MODEL})),
        Skew(
            "item vectors of another release",
            "items",
            with_vectors(lambda vectors: np.roll(vectors, 1, axis=0)),
            frozenset({"index:vector"}),
        ),
        Skew("time zone shift", "features", on_users(stamp, later(2 * HOURS)), frozenset({stamp.name})),
    ]


def first(features: Sequence[Feature], dtype: str) -> Feature:
    """The first plain number among these features."""
    return next(f for f in features if f.type == "numeric" and f.dtype == dtype and not f.is_list)


def windowed(features: Sequence[Feature]) -> Feature | None:
    """The first count over a window of days, by its name."""
    return next((feature for feature in features if re.search(r"_\d+d$", feature.name)), None)


def on_users(feature: Feature, values: Callable[[pa.ChunkedArray], Any]) -> Change:
    return with_column("user_features", feature.name, values)


def on_items(feature: Feature, values: Callable[[pa.ChunkedArray], Any]) -> Change:
    return with_column("item_features", feature.name, values)


def stale(number: Feature, stamp: Feature) -> Change:
    """As computed a day earlier."""

    def change(folder: Path) -> None:
        on_users(number, lambda column: pc.multiply(column, 0.75))(folder)
        on_users(stamp, later(-24 * HOURS))(folder)

    return change


def shifted_window(column: pa.ChunkedArray) -> Any:
    """What a window that ends earlier counts: less wherever there was something to count."""
    return pc.multiply(column, 0.5)


def other_default(feature: Feature) -> Callable[[pa.ChunkedArray], Any]:
    wrong = pa.scalar(float(feature.missing or 0.0) + 1.0, pa.float32())
    return lambda column: pc.fill_null(column, wrong)


def scaled(column: pa.ChunkedArray) -> Any:
    """Standardized before it is stored, although the model's graph does that."""
    deviation = pc.stddev(column).as_py() or 1.0
    return pc.divide(pc.subtract(column, pc.mean(column)), deviation)


def later(seconds: int) -> Callable[[pa.ChunkedArray], Any]:
    return lambda column: pc.add(column, seconds)


def with_missing_values(release: Release) -> Change:
    """Every third user lacks a value, so that defaults for missing ones are served at all."""
    name = first(release.spec().user_features, "float32").name

    def every_third(column: pa.ChunkedArray) -> pa.Array:
        values = column.to_pylist()
        return pa.array([None if place % 3 == 0 else value for place, value in enumerate(values)], column.type)

    return with_column("user_features", name, every_third)


@contextmanager
def asked(settings: Settings, astray: tuple[str, Any] | None = None) -> Iterator[Callable[[ParityRequest], Any]]:
    """The application in this process on the settings' stores, one of them perhaps replaced; yields what asks it."""
    stores = open_stores(settings)
    if astray is not None:
        port, store = astray
        getattr(stores, port).close()
        stores = replace(stores, **{port: store})
    runtime = Runtime(settings)
    runtime.open(lambda _: stores)
    try:
        client = build_app(runtime).test_client()
        yield lambda request: client.post(request.path, json=request.body).get_json()
    finally:
        runtime.close()


def run_check(settings: Settings, release: Release, score: Score, requests: int, astray: tuple[str, Any]) -> Findings:
    """The consistency check on a server in this process, one of whose stores went astray."""
    with asked(settings, astray) as ask:
        return compare(settings, release, ask, score, requests)


def inject(settings: Settings, release: Release, skew: Skew, folder: Path) -> Any:
    """A store of the skew's port that holds an altered copy of the release."""
    elsewhere = settings.with_values(**{"data.store": str(folder)})
    altered = altered_copy(release, Workspace(elsewhere).releases, skew.change)
    store = OPENERS[skew.port](elsewhere)
    store.load(altered)
    return store


def skew_proof(*, tiny: bool = False, clean_runs: int = CLEAN_RUNS, requests: int = 40) -> dict[str, Any]:
    """The proof, in a temporary folder.

    Args:
        tiny: on a release without training.
        clean_runs: runs of the check on unaltered stores.
        requests: of each run of the check.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-skew-")))
        made, origin = reference_release(folder / "made", tiny=tiny)
        settings = made.with_values(**{"data.store": str(folder / "store")})
        release = altered_copy(origin, Workspace(settings).releases, with_missing_values(origin))
        opened.callback(embedded_redis.stop, Workspace(settings).online)
        publish(settings, release.id)
        score = offline_score(release)
        with asked(settings) as ask:
            clean = [
                compare(settings.with_values(seed=seed), release, ask, score, requests) for seed in range(clean_runs)
            ]
        log.info("%d runs on unaltered stores, %d alarms", len(clean), sum(not run.ok for run in clean))
        found = {}
        for number, skew in enumerate(skews(release)):
            store = inject(settings, release, skew, folder / f"astray-{number}")
            findings = run_check(settings, release, score, requests, (skew.port, store))
            found[skew.name] = verdict(skew, findings)
            log.info("%s: %s", skew.name, found[skew.name])
    false_alarms = sum(not findings.ok for findings in clean)
    caught = sum(one["caught"] for one in found.values())
    named = sum(one["named"] for one in found.values())
    return {
        "name": "skew",
        "machine": machine(),
        "ok": caught == named == len(found) and not false_alarms,
        "trained": not tiny,
        "injected": len(found),
        "caught": caught,
        "named": named,
        "clean_runs": len(clean),
        "false_alarms": false_alarms,
        "clean_max_abs_delta": max(findings.max_abs_delta for findings in clean),
        "alarms": [findings.named() for findings in clean if not findings.ok],
        "skews": found,
    }


def verdict(skew: Skew, findings: Findings) -> dict[str, Any]:
    """Whether the check caught a skew, and by which name."""
    worst = findings.named()["feature"]
    return {
        "caught": not findings.ok,
        "named": worst in skew.names,
        "as": worst,
        "differences": sum(findings.differences.values()),
        "max_abs_delta": findings.max_abs_delta,
    }


def main(argv: list[str] | None = None) -> None:
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--tiny", action="store_true", help="on a release without training")
    arguments.add_argument("--clean-runs", type=int, default=CLEAN_RUNS, help="runs on unaltered stores")
    arguments.add_argument("--requests", type=int, default=40, help="of each run of the check")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return skew_proof(tiny=parsed.tiny, clean_runs=parsed.clean_runs, requests=parsed.requests)

    run_step("skew", arguments, step, argv)


if __name__ == "__main__":
    main()
