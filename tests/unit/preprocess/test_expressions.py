"""Point-in-time features equal a slow reference on logs full of ties, see nothing of the future and nothing of row order."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_exchange_center.tables import STRINGS
from offline.preprocess.expressions import ITEM_FEATURES, USER_FEATURES
from tests.unit.preprocess.feature_runner import HISTORY, FeatureRunner, differences
from tests.unit.preprocess.slow_reference import Event, item_reference, user_reference

DAY = 86_400
START = 880_000_000
USERS = range(1, 5)
ITEMS = range(1, 7)
# steps that sit on both sides of every boundary: ties, sessions, hours, windows of days
STEPS = [0, 0, 0, 1, 5, 1800, 1801, 3599, 3600, DAY - 1, DAY, DAY + 1, 7 * DAY, 7 * DAY + 1, 30 * DAY, 30 * DAY + 1]
GENRES = [["Drama"], ["Comedy", "Drama"], [], ["Noir", "Drama", "War"], ["Comedy"], ["War", "Epic", "Noir", "Saga"]]
YEARS = [1994, 0, 1915, 2031, 1999, 1920]

slow = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
slower = settings(slow, max_examples=12)


def catalog_items() -> pa.Table:
    """A small catalog with every kind of terms and years."""
    return pa.table({"item_id": list(ITEMS), "genres": pa.array(GENRES, STRINGS), "year": YEARS})


@cache
def runner() -> FeatureRunner:
    return FeatureRunner(catalog_items(), pa.int64())


@st.composite
def logs(draw: st.DrawFn, *, most: int = 40) -> list[Event]:
    """Events on few users, items and moments, so that most share a timestamp with others."""
    moments = [START]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=9)):
        moments.append(moments[-1] + step)
    event = st.builds(
        Event,
        user=st.sampled_from(USERS),
        item=st.sampled_from(ITEMS),
        timestamp=st.sampled_from(moments),
        label=st.integers(0, 1),
        rating=st.one_of(st.none(), st.sampled_from([0.5, 1.0, 2.0, 3.5, 4.0, 5.0])),
    )
    return draw(st.lists(event, max_size=most))


def probes_of(events: list[Event]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Every user and item at every moment of the log, just after, and long after; two of them ask twice."""
    moments = sorted({e.timestamp for e in events} | {START})
    moments = [*moments, moments[-1] + 1, moments[-1] + 40 * DAY]
    of_users = [(user, t) for user in (*USERS, 99) for t in moments]
    of_items = [(item, t) for item in ITEMS for t in moments]
    return [*of_users, of_users[0]], [*of_items, of_items[0]]


@slow
@given(logs())
def test_every_feature_equals_the_slow_reference(events: list[Event]) -> None:
    user_probes, item_probes = probes_of(events)
    of_users, of_items = runner()(events, user_probes, item_probes)
    assert set(of_users) == set(user_probes)
    assert set(of_items) == set(item_probes)
    catalog = runner().catalog
    for (user, t), found in of_users.items():
        assert tuple(found) == USER_FEATURES
        assert not differences(found, user_reference(events, catalog, user, t, HISTORY)), (user, t)
    for (item, t), found in of_items.items():
        assert tuple(found) == ITEM_FEATURES
        assert not differences(found, item_reference(events, catalog, item, t)), (item, t)


def test_a_long_tied_history_equals_the_slow_reference() -> None:
    """Random logs of hypothesis stay short; here users have up to 60 events, in groups of one to eight."""
    chance = random.Random(3)
    events = []
    for user in USERS:
        t = START
        while sum(e.user == user for e in events) < 50:
            t += chance.choice(STEPS)
            events += [
                Event(user, chance.choice(ITEMS), t, chance.randint(0, 1), float(chance.randint(1, 5)))
                for _ in range(chance.randint(1, 8))
            ]
    user_probes, item_probes = probes_of(events)
    user_probes, item_probes = chance.sample(user_probes, 40), chance.sample(item_probes, 20)
    of_users, of_items = runner()(events, user_probes, item_probes)
    for user, t in user_probes:
        assert not differences(of_users[user, t], user_reference(events, runner().catalog, user, t, HISTORY))
    for item, t in item_probes:
        assert not differences(of_items[item, t], item_reference(events, runner().catalog, item, t))


@slower
@given(logs(), logs(), st.data())
def test_no_features_change_when_their_future_is_altered(
    past: list[Event], other: list[Event], data: st.DataObject
) -> None:
    """Events at or after a row's timestamp are replaced, relabelled and removed; its features stay the same to the bit."""
    moments = sorted({e.timestamp for e in past}) or [START]
    now = data.draw(st.sampled_from(moments), label="now")
    known = [e for e in past if e.timestamp < now]
    relabelled = [replace(e, label=1 - e.label, rating=1.0) for e in past if e.timestamp >= now]
    inserted = [e for e in other if e.timestamp >= now]
    probes = probes_of(past)
    asked = [[(key, t) for key, t in of if t <= now] for of in probes]
    plain = runner()(past, *asked)
    assert runner()([*known, *relabelled], *asked) == plain
    assert runner()([*known, *inserted], *asked) == plain
    assert runner()(known, *asked) == plain


@slower
@given(logs(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(events: list[Event], chance: random.Random) -> None:
    shuffled = list(events)
    chance.shuffle(shuffled)
    probes = probes_of(events)
    assert runner()(shuffled, *probes) == runner()(events, *probes)


@slower
@given(logs(), st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(0, 1))
def test_a_snapshot_equals_the_features_of_an_appended_event(
    events: list[Event], user: int, item: int, label: int
) -> None:
    """What serving reads at a moment is what training would have seen of an event at that moment."""
    now = max((e.timestamp for e in events), default=START) + 1
    snapshot = runner()(events, [(user, now)], [(item, now)])
    appended = [*events, Event(user, item, now, label, None)]
    rows = runner()(appended, *([(getattr(e, key), e.timestamp) for e in appended] for key in ("user", "item")))
    assert rows[0][user, now] == snapshot[0][user, now]
    assert rows[1][item, now] == snapshot[1][item, now]


@pytest.mark.parametrize("attributes", [True, False], ids=["with attributes", "without genres and years"])
def test_string_ids_and_catalogs_without_attributes_work_alike(attributes: bool) -> None:
    names = {item: f"item-{item:02}" for item in ITEMS}
    columns = {"item_id": list(names.values())}
    if attributes:
        columns |= {"genres": pa.array(GENRES, STRINGS), "year": YEARS}
    strings = FeatureRunner(pa.table(columns), pa.string())
    chance = random.Random(5)
    events = [
        Event(f"u{chance.choice(USERS)}", chance.choice(list(names.values())), START + chance.choice(STEPS), 1, None)
        for _ in range(40)
    ]
    user_probes = [(e.user, e.timestamp) for e in events]
    item_probes = [(e.item, e.timestamp) for e in events]
    of_users, of_items = strings(events, user_probes, item_probes)
    for user, t in set(user_probes):
        assert not differences(of_users[user, t], user_reference(events, strings.catalog, user, t, HISTORY))
    for item, t in set(item_probes):
        assert not differences(of_items[item, t], item_reference(events, strings.catalog, item, t))
