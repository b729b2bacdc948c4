"""A release with as many users as wanted and nothing but what the sync of users reads: for measuring that sync.

Histories are about as long as MovieLens' (geometric, 80 on average, at most 400), vectors have 66 elements, users like five terms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center import tables
from data_exchange_center.release import Release
from data_exchange_center.workspace import sha256, write_array, write_table

DIMENSION, ITEMS, MEAN_HISTORY, LONGEST_HISTORY = 66, 20_000, 80, 400
TERMS = ("Action", "Comedy", "Crime", "Drama", "Horror", "Romance", "Thriller", "War")
LIKED = 5
FIRST, LAST = 874_724_710, 893_286_638  # unix seconds


def make_users_release(folder: Path, users: int, seed: int = 0) -> Release:
    """Writes users, profiles and vectors below `folder`."""
    generator = np.random.default_rng(seed)
    ids = pa.array(np.arange(1, users + 1), pa.int64())
    write_table(folder / "tables" / "users.parquet", tables.USERS.validate(pa.table({c.USER_ID: ids})))
    write_table(
        folder / "tables" / "user_profiles.parquet", tables.USER_PROFILES.validate(profiles_table(ids, generator))
    )
    write_array(folder / "recall" / "user_vectors.npy", generator.normal(size=(users, DIMENSION)).astype(np.float32))
    files = [path for path in folder.rglob("*") if path.is_file()]
    listed = {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size} for path in files
    }
    return Release(folder, {"release": folder.name, "scene": "movielens", "files": listed})


def profiles_table(ids: pa.Array, generator: np.random.Generator) -> pa.Table:
    """`user_profiles` of these users."""
    users = len(ids)
    lengths = np.clip(generator.geometric(1 / MEAN_HISTORY, users), 1, LONGEST_HISTORY)
    events = int(lengths.sum())
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    labels = generator.integers(0, 2, events).astype(np.int8)
    times = np.sort(generator.integers(FIRST, LAST, events))
    liked = np.argsort(generator.random((users, len(TERMS))), axis=1)[:, :LIKED]
    of_terms = pa.array(np.arange(0, users * LIKED + 1, LIKED, dtype=np.int32))

    def lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.array(values, kind))

    return pa.table(
        {
            c.USER_ID: ids,
            "segment": pa.array(np.array(("F", "M"))[generator.integers(0, 2, users)]),
            "last_timestamp": pa.array(np.full(users, LAST), pa.int64()),
            "terms": pa.ListArray.from_arrays(of_terms, pa.array(np.array(TERMS)[liked.ravel()])),
            "term_weights": pa.ListArray.from_arrays(of_terms, pa.array(generator.random(users * LIKED), pa.float32())),
            "history": lists(generator.integers(0, ITEMS, events), pa.int32()),
            "history_labels": lists(labels, pa.int8()),
            "history_timestamps": lists(times, pa.int64()),
            "history_values": lists(2.0 + 2.0 * labels, pa.float32()),
        }
    )
