"""Point-in-time features of a log: ours against a plain per-user pandas loop and against vectorised pandas, same results.

    python benchmarks/preprocess.py                  1M generated events
    python benchmarks/preprocess.py --events 100000

Each computes, for every event, the features of the MovieLens scene from what happened strictly before it, and ends with all of
them in memory, one row per event. The loop runs on a sample of users and is scaled by their events. All results are compared.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.common import report
from benchmarks.support.looped_pandas import PlainLoop
from benchmarks.support.vectorised_pandas import vectorised_features
from data_exchange_center.axes import axes_of
from offline.datasets.synthetic import generate
from offline.preprocess.engine import connect, register
from offline.preprocess.expressions import (
    ITEM_FEATURES,
    USER_FEATURES,
    item_features,
    item_timeline,
    judged_events,
    user_features,
    user_timeline,
)

log = logging.getLogger("marquee.benchmark")
Made = TypeVar("Made")

HISTORY = 50
TERM_LENGTH = 20
FEATURES = (
    "user_events", "user_positives", "user_positives_last5", "user_positives_last10", "user_positives_last20",
    "user_value_sum", "user_value_square_sum", "user_values_last5", "user_values_last20", "user_residual_sum",
    "user_residual_last20", "user_value_residual_sum", "user_value_residual_last20", "user_popularity_sum",
    "user_first_timestamp", "user_last_timestamp", "user_session_events", "user_term_events", "user_term_positives",
    "user_term_residual", "user_decade_events", "user_decade_positives", "user_global_rate", "user_global_value",
    "history_items", "history_labels", "item_events", "item_events_7d", "item_events_30d", "item_rate",
    "item_positives_30d", "item_positives_last20", "item_value_sum", "item_residual_sum", "item_global_value",
    "item_first_timestamp", "item_terms", "item_decade",
)  # fmt: skip


def ours(interactions: pa.Table, items: pa.Table) -> pa.Table:
    """The product's expressions on DuckDB: one row per event with its position and all features, in any order."""
    engine = connect("duckdb")
    events = register(engine, "interactions", interactions)
    catalog = register(engine, "items", items)
    axes = axes_of(items, TERM_LENGTH)
    judged = engine.create_table("judged", judged_events(events))
    busiest = {
        key: judged.group_by(key).aggregate(n=judged.count()).n.max().execute() for key in ("user_id", "item_id")
    }
    users = user_timeline(
        judged,
        catalog,
        axes=axes,
        history_length=HISTORY,
        busiest=busiest["user_id"],
        wanted=[name for name in FEATURES if name in USER_FEATURES],
    )
    of_items = item_timeline(
        judged,
        catalog,
        axes=axes,
        busiest=busiest["item_id"],
        wanted=[name for name in FEATURES if name in ITEM_FEATURES],
    )
    rows = item_features(of_items, events, onto=user_features(users, events, onto=events))
    return engine.to_pyarrow(rows.select("position", *FEATURES))


def timed(what: str, run: Callable[[], Made]) -> tuple[Made, float, float]:
    """The result, the seconds it took and the processor's seconds."""
    started, processor = time.perf_counter(), time.process_time()
    result = run()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    log.info("  %-24s %8.1f s, %8.1f s of the processor", what, seconds, processor)
    return result, seconds, processor


def column(table: pa.Table, name: str) -> np.ndarray:
    """A feature as numpy; arrays as two dimensions, padded with -1."""
    values = table[name].combine_chunks()
    if not pa.types.is_list(values.type):
        return values.to_numpy(zero_copy_only=False)
    lengths = values.value_lengths().to_numpy()
    width = HISTORY if name.startswith("history_") else int(lengths.max())
    padded = np.full((len(values), width), -1.0, np.float32)
    padded[np.arange(width)[None, :] < lengths[:, None]] = values.flatten().to_numpy()
    return padded


def largest_difference(name: str, first: np.ndarray, second: np.ndarray) -> float:
    """Largest difference of two results; more than float32 can hide is an error that ends the benchmark."""
    scale = np.maximum(np.abs(first), 1.0)
    worst = float(np.max(np.abs(first - second) / scale, initial=0.0))
    if not worst < 1e-5:
        row = int(np.argmax((np.abs(first - second) / scale).reshape(len(first), -1).max(axis=1)))
        raise SystemExit(f"{name} differs in row {row}: {first[row]} and {second[row]}")
    return worst


def compare(events: int, users: int, items: int, sample: int, repeats: int, seed: int) -> None:
    """Generates a log, runs the three, compares their results and reports. Ours and vectorised take turns; the best counts."""
    data = generate(users, items, events, seed)
    axes = axes_of(data.items, TERM_LENGTH)
    frame = data.interactions.to_pandas()
    catalog = data.items.to_pandas()
    arguments = (catalog, list(axes.terms), TERM_LENGTH, HISTORY)
    turns: dict[str, list[tuple[float, float]]] = {"ours": [], "vectorised": []}
    for _ in range(repeats):
        table, *spent = timed("ours", lambda: ours(data.interactions, data.items))
        turns["ours"].append((spent[0], spent[1]))
        vectorised, *spent = timed("vectorised pandas", lambda: vectorised_features(frame, *arguments))
        turns["vectorised"].append((spent[0], spent[1]))
    best = {name: min(seconds) for name, seconds in turns.items()}
    table = table.take(pc.sort_indices(table["position"]))  # the peers' order, to compare
    loop, start_seconds, _ = timed("plain loop, beginning", lambda: PlainLoop(frame, *arguments))
    chosen = np.random.default_rng(seed).choice(frame["user_id"].unique(), sample, replace=False)
    looped, sample_seconds, _ = timed(f"plain loop, {sample} users", lambda: pd.concat([loop.user(u) for u in chosen]))
    loop_seconds = start_seconds + sample_seconds * events / len(looped)

    worst = 0.0
    for name in FEATURES:
        values = column(table, name)
        worst = max(worst, largest_difference(name, values, vectorised[name].astype("float64")))
        some = values[looped.index.to_numpy()]
        if some.ndim == 1:
            expected = looped[name].to_numpy("float64")
        else:
            expected = np.full(some.shape, -1.0)
            for row, array in enumerate(looped[name]):
                expected[row, : len(array)] = array
        worst = max(worst, largest_difference(f"{name} (loop)", some, expected))
    report(
        "preprocess",
        _measured(events, *best["ours"]),
        {
            "loop": {"seconds": round(loop_seconds, 1), "rows_per_s": round(events / loop_seconds, 1), "users": sample},
            "vectorised": _measured(events, *best["vectorised"]),
        },
        {
            "loop": round(loop_seconds / best["ours"][0], 1),
            "vectorised": round(best["vectorised"][0] / best["ours"][0], 2),
        },
        rows=events,
        features=len(FEATURES),
        max_difference=worst,
    )


def _measured(events: int, seconds: float, processor: float) -> dict[str, float]:
    return {"seconds": round(seconds, 2), "cpu_seconds": round(processor, 2), "rows_per_s": round(events / seconds)}


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--users", type=int, default=6000)
    options.add_argument("--items", type=int, default=4000)
    options.add_argument("--sample", type=int, default=10, help="users of the plain loop")
    options.add_argument("--repeats", type=int, default=3, help="of ours and of vectorised pandas; the best counts")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    compare(given.events, given.users, given.items, given.sample, given.repeats, given.seed)


if __name__ == "__main__":
    main()
