"""A user's features brought up to date with events that came after the release, as offline would compute them with those events.

The release's row of a user holds the sums over all known events; the profile holds every known event and, of the newest ones, what
they were judged against. Each new event is judged against its item's standing in the release (offline/preprocess/standings.py):
what others did since is not known, as in every other feature of a release. Sums get what the new events add; what reads the
newest events (the last k, days, the session, the history) is computed anew from all of them, so an event that comes late
finds its place. What an event adds, and what features are made of, is defined in user_measures.py for offline and for here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.axes import DECADES, FIRST_DECADE, Axes
from data_exchange_center.user_measures import (
    LAST_EVENTS,
    OF_AXIS,
    OF_LAST,
    RECENT_DAYS,
    SECONDS_PER_DAY,
    SESSION_GAP,
    TOTALS,
    UNIT,
    measures,
    smoothed,
)


@dataclass(frozen=True)
class UserEvents:
    """Events of one user; every array has one element per event.

    Attributes:
        items: ids, int64 or object. timestamp: int64, unix seconds. label: int64, 0 or 1.
        value: int64, in units: the rating, else the label.
        item_rate, item_value, popularity: int64, in units; 0 where an event of the release is too old for them to be known.
    """

    items: np.ndarray
    timestamp: np.ndarray
    label: np.ndarray
    value: np.ndarray
    item_rate: np.ndarray
    item_value: np.ndarray
    popularity: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamp)

    def followed_by(self, others: UserEvents) -> UserEvents:
        """Both together, by timestamp."""
        order = np.argsort(np.concatenate([self.timestamp, others.timestamp]), kind="stable")
        both = {one.name: np.concatenate([getattr(self, one.name), getattr(others, one.name)]) for one in fields(self)}
        return UserEvents(**{name: values[order] for name, values in both.items()})


@dataclass(frozen=True)
class Standing:
    """What a release knows of its items and of its log, for judging events that come later.

    Attributes:
        rate, value, popularity: int64 [items + 1], in units; the last one stands for an item that the release does not know.
        flags: axis (term, decade) -> int64 [items + 1, length], whether an item belongs to an element of the axis.
        global_rate, global_value: of the log.
        history_length: most events in the history features.
    """

    rate: np.ndarray = field(repr=False)
    value: np.ndarray = field(repr=False)
    popularity: np.ndarray = field(repr=False)
    flags: Mapping[str, np.ndarray] = field(repr=False)
    global_rate: float
    global_value: float
    history_length: int

    @classmethod
    def of_tables(cls, standing: pa.Table, items: pa.Table, axes: Axes, history_length: int) -> Standing:
        """From the release's tables.

        Args:
            standing: tables.ITEM_STANDING, with global_rate and global_value, a row per item in any order.
            items: the items table.
        """
        ids = standing[c.ITEM_ID].to_pylist()
        places = {item: place for place, item in enumerate(ids)}
        order = np.array([places[item] for item in items[c.ITEM_ID].to_pylist()], np.int64)
        rate = float(standing["global_rate"][0].as_py())
        value = float(standing["global_value"][0].as_py())
        unknown = {
            "rate": in_units(smoothed(0.0, 0.0, rate)),
            "value": np.int64(_rounded(smoothed(0.0, 0.0, value * UNIT))),
            "popularity": np.int64(0),
        }
        columns = {name: np.append(standing[name].to_numpy()[order], last) for name, last in unknown.items()}
        return cls(
            **columns, flags=_flags(items, axes), global_rate=rate, global_value=value, history_length=history_length
        )

    def judged(
        self, items: np.ndarray, rows: np.ndarray, timestamps: np.ndarray, labels: np.ndarray, values: np.ndarray
    ) -> UserEvents:
        """Events as they stand against this release.

        Args:
            rows: item rows, -1 for an item that the release does not know. values: float, the rating, else the label.
        """
        return UserEvents(
            items=items,
            timestamp=timestamps.astype(np.int64),
            label=labels.astype(np.int64),
            value=in_units(values),
            item_rate=self.rate[rows],
            item_value=self.value[rows],
            popularity=self.popularity[rows],
        )


def known_events(
    items: np.ndarray,
    timestamps: np.ndarray,
    labels: np.ndarray,
    values: np.ndarray,
    rates: np.ndarray,
    item_values: np.ndarray,
) -> UserEvents:
    """The events of a profile, oldest first; `rates` and `item_values` (in units) belong to the newest ones."""
    count = len(items)

    def newest(judged: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(count - len(judged), np.int64), judged.astype(np.int64)])

    nothing = np.zeros(count, np.int64)
    return UserEvents(
        items,
        timestamps.astype(np.int64),
        labels.astype(np.int64),
        in_units(values),
        newest(rates),
        newest(item_values),
        nothing,
    )


def updated(
    wanted: Iterable[str],
    base: Mapping[str, Any],
    known: UserEvents,
    new: UserEvents,
    rows: np.ndarray,
    standing: Standing,
) -> dict[str, Any]:
    """The wanted features with the new events counted.

    Args:
        wanted: names of user features; those that events do not change are passed over.
        base: feature -> its value in the release's row: a number, or an array [length].
        known: every event that the row counts.
        new: at least one event that it does not count.
        rows: item rows of the new events, -1 for an item that the release does not know.

    Returns:
        feature -> a number, an array, or for histories a list, newest first and not padded.
    """
    wanted = set(wanted)
    made = _sums(wanted, base, new, {axis: flags[rows] for axis, flags in standing.flags.items()})
    every = known.followed_by(new)
    times, count = every.timestamp, len(every)
    added = measures(every)
    for k in LAST_EVENTS:
        for measure, name in OF_LAST.items():
            if f"user_{name}_last{k}" in wanted:
                total = sum_of_last(k, times, added[measure])
                made[f"user_{name}_last{k}"] = total if measure == "label" else total / UNIT
    spans = {f"{days}d": int(np.searchsorted(times, times[-1] - days * SECONDS_PER_DAY)) for days in RECENT_DAYS}
    for span, start in spans.items():
        made[f"user_events_{span}"] = count - start
        made[f"user_positives_{span}"] = int(every.label[start:].sum())
    opened = np.flatnonzero(np.diff(times) > SESSION_GAP)
    session = int(opened[-1]) + 1 if len(opened) else 0
    made["user_session_start"] = int(times[session])
    made["user_session_events"] = count - session
    made["user_session_positives"] = int(every.label[session:].sum())
    made["user_first_timestamp"], made["user_last_timestamp"] = int(times[0]), int(times[-1])
    made |= _history(every, standing.history_length)
    if not len(known):  # the row of somebody unknown holds defaults
        made |= {"user_global_rate": standing.global_rate, "user_global_value": standing.global_value}
    return {name: value for name, value in made.items() if name in wanted}


def sum_of_last(events: int, times: np.ndarray, measure: np.ndarray) -> float:
    """Sum of a measure over the last events; a group of tied events that the cut falls into gives its proportionate share.

    The same as offline/preprocess/timelines.py says for windows.
    """
    count = len(times)
    if count <= events:
        return float(measure.sum())
    cut = times[count - events]
    start, end = np.searchsorted(times, cut, "left"), np.searchsorted(times, cut, "right")
    surplus = count - start - events
    return float(measure[start:].sum() - surplus * measure[start:end].sum() / float(end - start))


def in_units(value: Any) -> Any:
    """Numbers in units of 1/1024, rounded half away from zero as engines do: int64."""
    return np.asarray(_rounded(np.asarray(value, np.float64) * UNIT)).astype(np.int64)


def _rounded(value: Any) -> Any:
    return np.sign(value) * np.floor(np.abs(value) + 0.5)


def _exact(units: Any) -> Any:
    return units / UNIT


def _sums(
    wanted: set[str], base: Mapping[str, Any], new: UserEvents, flags: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Features over all events: sums, so that what new events add can be added to them. flags: axis -> [events, length]."""
    added = {"n": np.ones(len(new), np.int64), **measures(new)}
    made: dict[str, Any] = {}
    for name, feature in TOTALS.items():
        if name in wanted:
            made[name] = base[name] + feature.formula(_exact, *(int(added[one].sum()) for one in feature.measures))
    for axis, of_events in flags.items():
        for kind, feature in OF_AXIS.items():
            name = f"user_{axis}_{kind}"
            if name in wanted:
                more = feature.formula(_exact, *(added[one] @ of_events for one in feature.measures))
                made[name] = np.asarray(base[name], np.float64)
                made[name][: len(more)] += more
    return made


def _history(every: UserEvents, length: int) -> dict[str, list[Any]]:
    """The newest events, by (timestamp, item, label, value) as offline orders them."""
    times = every.timestamp
    start = int(np.searchsorted(times, times[max(0, len(times) - length)]))
    columns = (times, every.items, every.label, every.value)
    newest = sorted(zip(*(column[start:].tolist() for column in columns), strict=True), reverse=True)[:length]
    return {
        "history_items": [item for _, item, _, _ in newest],
        "history_labels": [label for _, _, label, _ in newest],
        "history_values": [value / UNIT for _, _, _, value in newest],
        "history_timestamps": [timestamp for timestamp, _, _, _ in newest],
    }


def _flags(items: pa.Table, axes: Axes) -> dict[str, np.ndarray]:
    """Which elements of the axes each item belongs to; the last row, of an unknown item, to none."""
    count = items.num_rows
    terms = np.zeros((count + 1, len(axes.terms)), np.int64)
    places = {term: place for place, term in enumerate(axes.terms)}
    of_items: Sequence[Sequence[str] | None] = items[c.TERMS].to_pylist() if axes.terms else ()
    for row, own in enumerate(of_items):
        terms[row, [places[term] for term in own or () if term in places]] = 1
    flags = {"term": terms}
    if axes.decades:
        years = items[c.YEAR].fill_null(0).to_numpy()
        decade = np.clip((years - FIRST_DECADE) // 10, 0, DECADES - 1)
        decades = np.zeros((count + 1, DECADES), np.int64)
        dated = np.flatnonzero(years > 0)
        decades[dated, decade[dated]] = 1
        flags["decade"] = decades
    return flags
