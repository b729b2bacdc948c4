"""How good the whole recommender is: ranking, every recall channel and the served list, over several seeds.

Protocol 1, ranking: the rows marked test, by a model that saw the train rows alone. Protocol 2, recall and the chain: the
positives among the rows marked online, by a release that saw everything before them. The chain is not simulated: each
seed's release is published to embedded stores of its own, and the lists come from the code that answers requests. Nothing
is selected here.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from tqdm import tqdm

from data_exchange_center import columns as c
from data_exchange_center.candidates import union
from data_exchange_center.list_metrics import list_metrics, per_user
from data_exchange_center.programs import run_program
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace, read_table, write_json
from online.pipeline.context import Part, RequestContext
from online.pipeline.filters import eligible_items
from online.pipeline.policy import Policy
from online.pipeline.query import Query
from online.pipeline.recommend import propose, recommend
from online.pipeline.release_view import ReleaseView, load_view
from online.pipeline.visitor import read_visitor
from online.stores.embedded_redis import stop as stop_redis
from online.stores.open import open_stores
from online.stores.ports import Stores

log = logging.getLogger("marquee")

TOP = 50
UNION = 200
BOOTSTRAP = 1000
BUDGET_S = 30.0  # an evaluation waits for its stores: a degraded answer would be judged as a full one

# MovieLens 100K, same protocols, mean over 3 seeds, as measured with each library's own code
PEERS = {
    "ml-100k": {
        "popularity, refit": {"r50": 0.257, "r200": 0.552, "ndcg50": 0.147},
        "item-kNN, refit": {"r50": 0.428, "r200": 0.743, "ndcg50": 0.241},
        "SASRec L50, refit": {"r50": 0.432, "r200": 0.725, "ndcg50": 0.246},
        "iALS d32, refit": {"r50": 0.433, "r200": 0.765, "ndcg50": 0.248},
        "EASE, refit": {"r50": 0.464, "r200": 0.788, "ndcg50": 0.265},
        "EASE + two-tower + BPR, then LightGBM": {"r50": 0.515, "r200": 0.807, "ndcg50": 0.304, "hr50": 0.892},
        "LightGBM, point-in-time features": {"auc": 0.796, "gauc": 0.672, "logloss": 0.544},
        "DCNv2, point-in-time features": {"auc": 0.802, "gauc": 0.699, "logloss": 0.537},
        "LightGBM + DCNv2 + MF": {"auc": 0.807, "gauc": 0.700, "logloss": 0.535},
    }
}


def evaluate(settings: Settings, seeds: int) -> dict[str, Any]:
    """Trains, publishes and judges one release per seed, from `settings.seed` on.

    Returns:
        rank, recall, union, popularity and chain as means over seeds, `std` of the same shape, the chain's bootstrap
        interval over users, what became of missed positives, peers' figures where they were measured, and the runs.
    """
    settings = settings.with_values(**{"split.holdout": "online"})
    runs = []
    for seed in range(settings.seed, settings.seed + seeds):
        seeded = settings.with_values(seed=seed)
        log.info("== seed %d", seed)
        offline = run_program("offline/s0_run_offline.py", [], seeded)
        runs.append(judge(seeded, find_release(seeded, offline["release"])))
    parts = {name: [run[name] for run in runs] for name in ("rank", "recall", "union", "popularity", "chain", "missed")}
    result = {
        **{name: combined(values, np.mean) for name, values in parts.items()},
        "seeds": seeds,
        "std": {name: combined(values, np.std) for name, values in parts.items()},
        "chain_interval_95": runs[0]["interval"],
        "protocol": settings.split.protocol,
        "dataset": settings.dataset_name,
        "peers": PEERS.get(settings.dataset_name, {}) if settings.split.protocol == "per_user" else {},
        "releases": [run["release"] for run in runs],
    }
    write_json(Workspace(settings).run / "evaluation.json", result)
    log.info("%s", table_of(result))
    return result


def judge(settings: Settings, release: Release) -> dict[str, Any]:
    """One release's figures: those in its manifest, and the chain's."""
    metrics = release.manifest["metrics"]
    with published_alone(settings, release) as (own, stores):
        chain = judge_chain(own, load_view(own, release.id), stores, held_out(settings))
    return {
        "release": release.id,
        "rank": numbers(metrics["rank"]),
        "recall": {name: numbers(values) for name, values in metrics["recall"]["recall"].items()},
        "popularity": numbers(metrics["recall"]["popularity"]),
        **chain,
    }


@contextmanager
def published_alone(settings: Settings, release: Release) -> Iterator[tuple[Settings, Stores]]:
    """The release, published to embedded stores of its own that go away in the end."""
    with tempfile.TemporaryDirectory(prefix="marquee-evaluate-") as folder:
        own = own_stores(settings, Path(folder))
        try:
            run_program("offline_to_online/publish.py", ["--release", release.id], own)
            stores = open_stores(own)
            try:
                yield own, stores
            finally:
                stores.close()
        finally:
            stop_redis(Workspace(own).online)


def own_stores(settings: Settings, folder: Path) -> Settings:
    """The same settings on embedded stores in a folder of their own, which sees the real releases."""
    (folder / "releases").symlink_to(Workspace(settings).releases)
    embedded = dict.fromkeys(("user_store", "item_index", "feature_store", "scorer"), "embedded://")
    return settings.with_values(
        **{"data.store": str(folder), **{f"stores.{name}": url for name, url in embedded.items()}}
    )


def held_out(settings: Settings) -> dict[int | str, list[int | str]]:
    """User -> items of the online rows with a positive label."""
    rows = read_table(Workspace(settings).split / "interactions.parquet", [c.USER_ID, c.ITEM_ID, c.LABEL, c.SPLIT])
    wanted = rows.filter(pc.and_(pc.equal(rows[c.SPLIT], c.ONLINE), pc.equal(rows[c.LABEL], 1)))
    found: dict[int | str, list[int | str]] = {}
    for user, item in zip(wanted[c.USER_ID].to_pylist(), wanted[c.ITEM_ID].to_pylist(), strict=True):
        found.setdefault(user, []).append(item)
    return found


def judge_chain(
    settings: Settings,
    view: ReleaseView,
    stores: Stores,
    positives: Mapping[int | str, Sequence[int | str]],
    *,
    without: frozenset[Part] = frozenset(),
    channels: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Asks the chain for every user with held-out positives.

    Args:
        without: parts that the given stores do not answer, and that every list therefore does without.
        channels: recall channels that may propose; empty: all.

    Returns:
        chain, union, interval (of the bootstrap over users), and missed: where held-out positives were lost, as shares of
        all of them that sum to one with the found ones.
    """
    policy = Policy.of(settings)
    lists: list[tuple[np.ndarray, np.ndarray]] = []
    unions: list[tuple[np.ndarray, np.ndarray]] = []
    fate = dict.fromkeys(("found", "not_indexed", "filtered", "not_retrieved", "cut_before_scoring", "ranked_low"), 0)
    started = time.perf_counter()
    for user, items in tqdm(positives.items(), desc="chain", unit="user", mininterval=1.0):
        query = Query(user_id=user, size=policy.prerank_size, channels=channels)
        context = RequestContext(view, request_id=f"evaluate-{user}", budget=BUDGET_S)
        visitor = read_visitor(context, stores.users, policy, query)
        eligible = eligible_items(view, visitor.unwanted, query.filters)
        proposed = propose(context, stores, visitor, query, eligible, policy)
        answer = recommend(context, stores, query, policy)
        if set(context.degraded) != without:
            raise RuntimeError(f"user {user}: made without {context.degraded}, not without {sorted(without)}")
        wanted = np.array([view.item_rows[item] for item in items if item in view.item_rows], np.int32)
        fate["not_indexed"] += len(items) - len(wanted)
        lists.append((answer.rows, wanted))
        unions.append((proposed.rows, wanted))
        retrieved = union(hits.rows for hits in proposed.hits)
        for row in wanted.tolist():
            fate[_fate(row, answer.rows, proposed.rows, retrieved, eligible)] += 1
    seconds = time.perf_counter() - started
    each = per_user(lists, recall=(TOP,), top=TOP)
    total = sum(fate.values()) or 1
    return {
        "chain": {**list_metrics(lists, recall=(TOP,), top=TOP), "ms_per_user": 1000 * seconds / max(len(lists), 1)},
        "union": {
            f"r{UNION}": list_metrics(unions, recall=(UNION,))[f"r{UNION}"],
            f"r{policy.prerank_size}": list_metrics(unions, recall=(policy.prerank_size,))[f"r{policy.prerank_size}"],
        },
        "interval": {name: bootstrap_interval(values, settings.seed) for name, values in each.items()},
        "missed": {name: count / total for name, count in fate.items()},
    }


def _fate(row: int, answered: np.ndarray, scored: np.ndarray, retrieved: np.ndarray, eligible: np.ndarray) -> str:
    if row in answered[:TOP]:
        return "found"
    if row in scored:
        return "ranked_low"
    if row in retrieved:
        return "cut_before_scoring"
    return "not_retrieved" if eligible[row] else "filtered"


def bootstrap_interval(values: np.ndarray, seed: int) -> list[float]:
    """95 % percentile interval of the mean, resampling users. values: float [users]."""
    if not len(values):
        return [0.0, 0.0]
    random = np.random.default_rng(seed)
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(BOOTSTRAP)]
    return [round(float(bound), 4) for bound in np.percentile(means, [2.5, 97.5])]


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are plain numbers."""
    return {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def combined(runs: Sequence[Any], how: Any) -> Any:
    """The same tree with each number combined over the runs; an entry that some run lacks is left out."""
    if isinstance(runs[0], Mapping):
        return {
            name: combined([run[name] for run in runs], how) for name in runs[0] if all(name in run for run in runs)
        }
    return round(float(how(runs)), 5)


def table_of(result: Mapping[str, Any]) -> str:
    """The main figures for a person, mean and spread over the seeds."""

    def line(name: str, values: Mapping[str, float], std: Mapping[str, float], wanted: Sequence[str]) -> str:
        shown = [f"{key} {values[key]:.4f} ± {std[key]:.4f}" for key in wanted if key in values]
        return f"  {name:11} " + "  ".join(shown)

    std = result["std"]
    lines = [f"{result['dataset']}, {result['protocol']}, {result['seeds']} seeds"]
    lines.append(line("rank", result["rank"], std["rank"], ("auc", "gauc", "logloss")))
    for channel, values in result["recall"].items():
        lines.append(line(channel, values, std["recall"][channel], ("r50", "r100", "r200", "ndcg50")))
    lines.append(line("union", result["union"], std["union"], tuple(result["union"])))
    lines.append(line("chain", result["chain"], std["chain"], ("r50", "ndcg50", "hr50")))
    lines += [f"  peer        {name}: {figures}" for name, figures in result["peers"].items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser("Judge ranking, recall and the whole chain over several seeds.")
    options.add_argument("--seeds", type=int, default=3, help="how many, counted from --seed")

    def step(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
        return evaluate(settings, arguments.seeds)

    run_step("evaluate", options, step, argv)


if __name__ == "__main__":
    main()
