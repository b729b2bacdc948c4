"""The split: a partition by time, exact in size, the same for every order of the rows, and blind to labels."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError
from data_exchange_center.settings import SplitSettings
from data_exchange_center.tables import SPLIT_INTERACTIONS
from offline.preprocess.split import split_interactions

# logs full of ties: few users, few moments; and one user long before, so that no split is without train rows
BEFORE = [(9, time) for time in range(1, 41)]
logs = st.lists(st.tuples(st.integers(0, 4), st.integers(51, 59)), max_size=80).map(lambda events: BEFORE + events)
onlines = st.integers(0, 12)
fractions = st.sampled_from([0.07, 0.5, 0.7, 0.8, 0.95])


def table(events: list[tuple[int, int]], labels: list[int] | None = None, ids: pa.DataType | None = None) -> pa.Table:
    """Interactions of (user, timestamp) pairs, in this order."""
    users = pa.array([user for user, _ in events], pa.int64())
    return pa.table(
        {
            "user_id": users if ids is None else pc.cast(users, ids),
            "item_id": pa.array(range(len(events)), pa.int64()),
            "timestamp": pa.array([time for _, time in events], pa.int64()),
            "position": pa.array(range(len(events)), pa.int64()),
            "rating": pa.nulls(len(events), pa.float32()),
            "label": pa.array(labels or [0] * len(events), pa.int8()),
        }
    )


def cut(interactions: pa.Table, protocol: str, online: int, fraction: float) -> pa.Table:
    """The split table under these settings."""
    return split_interactions(
        interactions, SplitSettings(protocol=protocol, online_events=online, train_fraction=fraction)
    )


def by_hand(events: list[tuple[int, int]], online: int, fraction: float) -> list[tuple[str, bool]]:
    """The per-user protocol as a plain loop."""
    marks: list[tuple[str, bool]] = [("", False)] * len(events)
    rows = defaultdict(list)
    for position, (user, time) in enumerate(events):
        rows[user].append((time, position))
    for mine in rows.values():
        mine.sort()
        offline = max(0, len(mine) - online)
        train = math.ceil(offline * Fraction(str(fraction)))
        early = math.ceil(train * Fraction(str(fraction)))
        for rank, (_, position) in enumerate(mine):
            marks[position] = ("train" if rank < train else "test" if rank < offline else "online", rank < early)
    return marks


@settings(max_examples=200, deadline=None)
@given(logs, onlines, fractions)
def test_per_user_is_what_a_plain_loop_does(events: list[tuple[int, int]], online: int, fraction: float) -> None:
    made = cut(table(events), "per_user", online, fraction)
    assert list(zip(made["split"].to_pylist(), made["early"].to_pylist(), strict=True)) == by_hand(
        events, online, fraction
    )


@settings(max_examples=100, deadline=None)
@given(logs, onlines, fractions, st.sampled_from(["per_user", "global_time"]))
def test_rows_keep_their_order_and_content(
    events: list[tuple[int, int]], online: int, fraction: float, protocol: str
) -> None:
    log = table(events)
    made = SPLIT_INTERACTIONS.validate(cut(log, protocol, online, fraction))
    assert made.select(log.column_names).equals(log)
    assert made["row_id"].to_pylist() == list(range(len(events)))
    early = made.filter(made["early"])
    assert set(early["split"].to_pylist()) <= {"train"}


@settings(max_examples=100, deadline=None)
@given(logs, onlines, fractions)
def test_no_user_has_a_later_part_before_an_earlier_one(
    events: list[tuple[int, int]], online: int, fraction: float
) -> None:
    made = cut(table(events), "per_user", online, fraction).to_pylist()
    place = {"train": 0, "test": 1, "online": 2}
    for mine in {row["user_id"] for row in made}:
        rows = sorted(
            (row for row in made if row["user_id"] == mine), key=lambda row: (row["timestamp"], row["position"])
        )
        parts = [place[row["split"]] for row in rows]
        assert parts == sorted(parts)
        assert parts.count(2) == min(online, len(rows))
        assert [row["early"] for row in rows] == sorted((row["early"] for row in rows), reverse=True)


@settings(max_examples=150, deadline=None)
@given(logs, onlines, fractions)
def test_by_time_every_moment_lies_in_one_part_and_parts_follow_each_other(
    events: list[tuple[int, int]], online: int, fraction: float
) -> None:
    made = cut(table(events), "global_time", online, fraction).to_pylist()
    moments = defaultdict(set)
    for row in made:
        moments[row["split"]].add(row["timestamp"])
        moments["early" if row["early"] else "late"].add(row["timestamp"])
    assert not moments["early"] & moments["late"]
    for older, newer in (("train", "test"), ("train", "online"), ("test", "online"), ("early", "late")):
        assert not moments[older] or not moments[newer] or max(moments[older]) < min(moments[newer])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=80), onlines, fractions)
def test_by_time_parts_are_as_large_as_per_user_when_no_moment_is_shared(
    users: list[int], online: int, fraction: float
) -> None:
    log = table(BEFORE + [(user, time + 50) for time, user in enumerate(users)])
    per_user, by_time = (
        Counter(cut(log, protocol, online, fraction)["split"].to_pylist()) for protocol in ("per_user", "global_time")
    )
    assert per_user == by_time


@settings(max_examples=50, deadline=None)
@given(logs, st.randoms(use_true_random=False), st.sampled_from(["per_user", "global_time"]))
def test_labels_and_the_type_of_ids_change_nothing(
    events: list[tuple[int, int]], random: object, protocol: str
) -> None:
    labels = [random.randint(0, 1) for _ in events]  # type: ignore[attr-defined]
    made = cut(table(events), protocol, 3, 0.8)
    other = cut(table(events, labels, pa.string()), protocol, 3, 0.8)
    assert made["split"].equals(other["split"])
    assert made["early"].equals(other["early"])


def test_ties_are_broken_by_the_position_and_not_by_the_place_of_the_row() -> None:
    log = table([(1, 5)] * 10)
    backwards = log.set_column(3, "position", pa.array(list(range(9, -1, -1))))
    splits = split_interactions(backwards, SplitSettings(online_events=2, train_fraction=0.75))["split"].to_pylist()
    assert splits == ["online"] * 2 + ["test"] * 2 + ["train"] * 6


def test_a_user_with_few_events_has_online_rows_only() -> None:
    made = split_interactions(table([(1, 1)] * 3 + [(2, 1)] * 20), SplitSettings()).to_pylist()
    assert {row["split"] for row in made if row["user_id"] == 1} == {"online"}


@pytest.mark.parametrize("protocol", ["per_user", "global_time"])
def test_a_split_without_train_rows_is_refused(protocol: str) -> None:
    events = [(1, 7)] * 5 if protocol == "global_time" else [(1, time) for time in range(1, 6)]
    with pytest.raises(DataError, match=f"the {protocol} split leaves no train rows of 5; lower split.online_events"):
        split_interactions(table(events), SplitSettings(protocol=protocol, online_events=5))


def test_without_online_events_nothing_is_online() -> None:
    made = split_interactions(table([(1, time) for time in range(1, 11)]), SplitSettings(online_events=0))
    assert made["split"].to_pylist() == ["train"] * 8 + ["test"] * 2
    assert made["early"].to_pylist() == [True] * 7 + [False] * 3
