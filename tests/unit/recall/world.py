"""A small world with a known preference: every user likes one genre, and most of what a user does is in it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_exchange_center.recall_parts import HistoryWeights
from offline.recall.known_rows import Events, KnownRows

GENRES = ("Comedy", "Drama", "Horror", "War")
START = 880_000_000


def make_events(
    rows: list[tuple[int, int, int]], users: int, items: int, timestamps: list[int] | None = None
) -> Events:
    """Events from (user, item, label), in the order of time."""
    user, item, label = (np.array([row[place] for row in rows], np.int64) for place in range(3))
    when = START + 60 * np.arange(len(rows)) if timestamps is None else np.array(timestamps, np.int64)
    events = Events(user, item, label.astype(np.int8), label.astype(np.float32), when, users, items)
    return events.take(np.lexsort((when, user)))


def make_world(users: int = 240, items: int = 160, length: int = 24, held_out: int = 4, seed: int = 0) -> KnownRows:
    """Users draw items without replacement: by a popularity with a tail, nine times more likely inside their genre.

    Item row i is of genre i % 4, user row u likes genre u % 4; what is outside of it is mostly disliked. The last item has no
    known rows.
    """
    random = np.random.default_rng(seed)
    popularity = 1.0 / (10 + random.permutation(items))
    known: list[tuple[int, int, int]] = []
    later: list[tuple[int, int, int]] = []
    for user in range(users):
        own = np.arange(items) % len(GENRES) == user % len(GENRES)
        weight = popularity * np.where(own, 9.0, 1.0)
        weight[-1] = 0.0
        chosen = random.choice(items, length, replace=False, p=weight / weight.sum())
        rows = [(user, int(item), int(own[item] or random.random() < 0.3)) for item in chosen]
        known += rows[:-held_out]
        later += rows[-held_out:]
    return KnownRows(
        cut="train",
        users=pa.table(
            {"user_id": np.arange(users), "gender": pa.array(["F" if u % 2 else "M" for u in range(users)])}
        ),
        items=pa.table(
            {
                "item_id": np.arange(items),
                "title": pa.array([f"item {item}" for item in range(items)]),
                "genres": pa.array([[GENRES[item % len(GENRES)]] for item in range(items)], pa.list_(pa.string())),
                "year": pa.array(1950 + np.arange(items) % 50, pa.int64()),
            }
        ),
        events=make_events(known, users, items),
        later=make_events(later, users, items),
        weights=HistoryWeights(),
    )
