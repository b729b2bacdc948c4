"""Popularity by user segment: a channel of its own, and the answer for users of whom nothing is known.

Two choices depend on the log and are made by it, on the newest tenth of each user's known events: how fast popularity fades (an
archive of people who came and went needs no fading, a live log does), and which attributes make segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from offline.recall.known_rows import Events
from offline.recall.side_features import numeric_buckets

HALF_LIVES = (None, 365, 90, 30, 7)  # days
NEWEST_SHARE = 0.1  # of each user's events judge the choices
SMALLEST_COUNT = 0.5  # of positives that every item starts with
MOST_VALUES, AGE_BUCKETS = 8, 4  # of an attribute that makes segments
MOST_ATTRIBUTES = 2
PRIOR = 10.0  # events per item at which a segment's own shares count half
DAY = 86_400


@dataclass(frozen=True)
class PopularityChannel:
    """The popularity channel.

    Attributes:
        scores: float32 [segments, items], log of (share x items); row 0 is the global segment "".
        segments: names, "" first.
        of_user: the segment of each user row.
        half_life: days, None when popularity does not fade.
        attributes: that make the segments.
    """

    scores: np.ndarray
    segments: tuple[str, ...]
    of_user: list[str]
    half_life: int | None
    attributes: tuple[str, ...]


def fit_popularity(users: pa.Table, events: Events) -> PopularityChannel:
    """Fits the channel on the known rows."""
    positives = events.positives
    lengths = np.diff(events.starts)[events.users]
    newest = (events.ages < np.ceil(NEWEST_SHARE * lengths))[events.labels > 0]
    older, judge = positives.take(~newest), positives.take(newest)
    half_life = max(HALF_LIVES, key=lambda days: _likelihood(_counts(older, days), judge))
    attributes, codes = _choose_attributes(users, older, judge, half_life)
    names, numbers = _named(codes, len(attributes), users.num_rows, attributes)
    table = _counts(positives, half_life)
    shares = _smoothed(_by_segment(positives, numbers, len(names), half_life), table)
    everybody = (table / table.sum())[None]
    scores = np.log(np.concatenate((everybody, shares)) * events.item_count)
    return PopularityChannel(
        scores.astype(np.float32), ("", *names), [names[n] if names else "" for n in numbers], half_life, attributes
    )


def _counts(positives: Events, half_life: int | None) -> np.ndarray:
    """[items]: positives per item, older ones fading, and a little for every item."""
    return np.bincount(positives.items, _fading(positives, half_life), positives.item_count) + SMALLEST_COUNT


def _fading(positives: Events, half_life: int | None) -> np.ndarray | None:
    if half_life is None or not len(positives):
        return None
    return 0.5 ** ((positives.timestamps.max() - positives.timestamps) / (DAY * half_life))


def _by_segment(positives: Events, numbers: np.ndarray, count: int, half_life: int | None) -> np.ndarray:
    """[segments, items]: positives of the segment's users."""
    if not count:
        return np.zeros((0, positives.item_count))
    cells = numbers[positives.users] * positives.item_count + positives.items
    found = np.bincount(cells, _fading(positives, half_life), count * positives.item_count)
    return found.reshape(count, positives.item_count)


def _smoothed(counts: np.ndarray, everybody: np.ndarray) -> np.ndarray:
    """Shares of a segment, with `PRIOR` global events per item mixed in."""
    prior = everybody / everybody.sum() * counts.shape[1] * PRIOR
    mixed = counts + prior
    shares: np.ndarray = mixed / mixed.sum(axis=1, keepdims=True)
    return shares


def _likelihood(counts: np.ndarray, judge: Events) -> float:
    """Log-likelihood of the judging events under shares from global counts."""
    return float(np.log(counts / counts.sum())[judge.items].sum())


def _choose_attributes(
    users: pa.Table, older: Events, judge: Events, half_life: int | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Attributes that raise the likelihood of the judging events, one after the other, and each user's combined code."""
    candidates = _attribute_codes(users)
    chosen: tuple[str, ...] = ()
    codes = np.zeros((users.num_rows, 0), object)
    everybody = _counts(older, half_life)
    best = _likelihood(everybody, judge)
    while len(chosen) < MOST_ATTRIBUTES:
        tried = []
        for name, values in candidates.items():
            if name not in chosen:
                together = np.column_stack((codes, values))
                names, numbers = _named(together, len(chosen) + 1, users.num_rows, (*chosen, name))
                shares = _smoothed(_by_segment(older, numbers, len(names), half_life), everybody)
                tried.append((float(np.log(shares[numbers[judge.users], judge.items]).sum()), name, together))
        if not tried:
            break
        gained, name, together = max(tried, key=lambda option: option[:2])
        if gained <= best:
            break
        best, chosen, codes = gained, (*chosen, name), together
    return chosen, codes


def _attribute_codes(users: pa.Table) -> dict[str, np.ndarray]:
    """Attribute -> a label per user, for attributes of few values and for numbers in quartiles."""
    found: dict[str, np.ndarray] = {}
    for column in users.column_names:
        values = users[column].combine_chunks()
        distinct = pc.count_distinct(values).as_py()
        if column == c.USER_ID or distinct < 2 or pa.types.is_nested(values.type):
            continue
        if distinct <= MOST_VALUES:
            labels = [str(value) for value in values.to_pylist()]
        elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            numbers = np.nan_to_num(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
            labels = [f"quartile {bucket + 1}" for bucket in numeric_buckets(numbers, AGE_BUCKETS)]
        else:
            continue
        found[column] = np.array(labels, object)
    return found


def _named(codes: np.ndarray, width: int, users: int, attributes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Names of the combinations that occur, ascending, and the number of each user's: int64 [users]."""
    if not width:
        return [], np.zeros(users, np.int64)
    labels = np.array(
        [", ".join(f"{name}={value}" for name, value in zip(attributes, row, strict=True)) for row in codes], object
    )
    names, numbers = np.unique(labels.astype(str), return_inverse=True)
    return [str(name) for name in names], numbers.astype(np.int64)
