"""Features that later events brought up to date equal what the offline expressions say of the log with these events in it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.axes import axes_of
from data_exchange_center.tables import STRINGS
from data_exchange_center.user_updates import Standing, UserEvents, in_units, known_events, updated
from offline.preprocess.expressions import USER_FEATURES
from tests.unit.preprocess.feature_runner import HISTORY, TERM_LENGTH, FeatureRunner, differences
from tests.unit.preprocess.slow_reference import Event, log_before_hour, smoothed
from tests.unit.preprocess.slow_reference import in_units as slow_units
from tests.unit.preprocess.test_expressions import ITEMS, START, USERS, catalog_items, logs, slow

USER = USERS[0]
STRANGER = 999  # an item that no release knows


@cache
def runner() -> FeatureRunner:
    """Offline, whose catalog has a bare row for the stranger as soon as an event names it."""
    bare = pa.table({"item_id": [STRANGER], "genres": pa.array([[]], STRINGS), "year": [0]})
    return FeatureRunner(pa.concat_tables([catalog_items(), bare]), pa.int64())


def made_of(log: list[Event], snapshot: int) -> tuple[Standing, list[int], list[int]]:
    """What a release made of this log holds, and what the user's newest events were judged against."""
    standing, recent = runner().standing(log, [(item, snapshot) for item in ITEMS])
    items = catalog_items()
    found = Standing.of_tables(standing, items, axes_of(items, TERM_LENGTH), HISTORY)
    own = [row for row in recent.to_pylist() if row["user_id"] == USER]
    return found, own[0]["recent_rates"] if own else [], own[0]["recent_item_values"] if own else []


def history_of(log: list[Event], rates: list[int], values: list[int]) -> UserEvents:
    """The user's events as a profile tells them."""
    own = sorted((e for e in log if e.user == USER), key=lambda e: e.timestamp)
    columns = ([getattr(e, name) for e in own] for name in ("item", "timestamp", "label", "value"))
    items, times, labels, numbers = (np.array(column) for column in columns)
    return known_events(items.astype(np.int64), times, labels, numbers, np.array(rates), np.array(values))


def compare(log: list[Event], later: list[Event], *, snapshot: int) -> None:
    standing, rates, values = made_of(log, snapshot)
    rows = np.array([ITEMS.index(e.item) if e.item in ITEMS else -1 for e in later])
    columns = ([getattr(e, name) for e in later] for name in ("item", "timestamp", "label", "value"))
    items, times, labels, numbers = (np.array(column) for column in columns)
    new = standing.judged(items, rows, times, labels, numbers)
    judged = [
        {
            "user_id": USER,
            "item_id": event.item,
            "timestamp": event.timestamp,
            "label": event.label,
            "value": slow_units(event.value),
            "item_rate": int(new.item_rate[place]),
            "item_value": int(new.item_value[place]),
            "user_rate": 0,
            "user_value": 0,
            "popularity": int(new.popularity[place]),
        }
        for place, event in enumerate(later)
    ]
    probe = (USER, max(e.timestamp for e in [*log, *later]) + 1)
    before, after = runner().after(log, judged, [probe])
    base, expected = before[probe], after[probe]
    found = updated(USER_FEATURES, base, history_of(log, rates, values), new, rows, standing)
    for name in ("user_global_rate", "user_global_value"):  # of the log, not of the user
        if name in found:
            assert math.isclose(found.pop(name), getattr(standing, name.removeprefix("user_")))
        expected.pop(name)
    assert not differences(plain(found), plain(expected))


def plain(features: dict[str, Any]) -> dict[str, Any]:
    """In one order and without NumPy."""
    return {
        name: [float(element) for element in value] if isinstance(value, list | np.ndarray) else float(value)
        for name, value in sorted(features.items())
    }


@settings(slow, max_examples=8)
@given(logs(), logs(most=8), st.booleans())
def test_updated_features_equal_those_of_the_longer_log(log: list[Event], later: list[Event], together: bool) -> None:
    """Later events are of any time: after the log, tied with it, or late."""
    anybody = Event(USERS[1], ITEMS[0], START, 1, None)
    shift = 0 if together else 40 * 86_400
    mine = [Event(USER, e.item, e.timestamp + shift, e.label, e.rating) for e in later]
    compare([anybody, *log], mine or [Event(USER, STRANGER, START + 5, 1, None)], snapshot=START + 90 * 86_400)


def test_a_long_history_with_ties_is_brought_up_to_date() -> None:
    random = np.random.default_rng(5)
    log = [
        Event(
            int(random.choice([USER, USERS[1]])), int(random.choice(ITEMS)), START + 700 * (place // 3), place % 2, 3.5
        )
        for place in range(150)
    ]
    late = [Event(USER, STRANGER, START + 700 * 10, 1, None), Event(USER, ITEMS[2], START + 700 * 49, 0, 1.0)]
    compare(log, [*late, Event(USER, ITEMS[1], START + 700 * 60, 1, 5.0)], snapshot=START + 700 * 50)


def test_an_event_is_judged_by_its_items_standing() -> None:
    log = [Event(user, ITEMS[0], START + user, user % 2, float(user)) for user in USERS]
    snapshot = START + 7200
    standing, _, _ = made_of(log, snapshot)
    rate, value, *_ = log_before_hour(log, snapshot)
    positives = sum(e.label for e in log)
    assert standing.rate[0] == slow_units(smoothed(positives, len(log), rate))
    assert standing.rate[1] == standing.rate[-1] == slow_units(rate)
    total = sum(slow_units(e.value) for e in log)
    assert standing.value[0] == math.floor(smoothed(total, len(log), value * 1024) + 0.5)
    assert standing.popularity.tolist()[:2] == [slow_units(math.log(1 + len(log))), 0]


@pytest.mark.parametrize("value", [0.0, 0.5, 3.0, -1.25, 1 / 2048, 3 / 2048, -1 / 2048])
def test_units_are_rounded_half_away_from_zero(value: float) -> None:
    assert in_units(value) == math.copysign(math.floor(abs(value) * 1024 + 0.5), value)
