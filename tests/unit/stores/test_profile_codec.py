"""Profiles survive their encoding, and what is not a profile is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_exchange_center.errors import StoreError
from online.stores.ports import UserProfile
from online.stores.profile_codec import decode_profile, encode_profile

INT64 = st.integers(-(2**63), 2**63 - 1)
words = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)


@st.composite
def profiles(draw: st.DrawFn) -> UserProfile:
    rows, terms = draw(st.integers(0, 30)), draw(st.lists(words, max_size=6))
    recent = draw(st.integers(0, rows))
    floats = st.floats(width=32, allow_nan=False)
    near = st.integers(874_724_710, 893_286_638)
    times = draw(st.lists(draw(st.sampled_from([near, st.integers(0, 2**40)])), min_size=rows, max_size=rows))
    return UserProfile(
        user_id=1,
        segment=draw(words),
        last_timestamp=draw(INT64),
        terms=tuple(terms),
        term_weights=draw(hnp.arrays(np.float32, len(terms), elements=floats)),
        vector=draw(hnp.arrays(np.float32, st.integers(0, 70), elements=floats)),
        history=draw(hnp.arrays(np.int32, rows)),
        history_labels=draw(hnp.arrays(np.int8, rows)),
        history_timestamps=np.array(times, np.int64),
        history_values=draw(hnp.arrays(np.float32, rows, elements=floats)),
        recent_rates=draw(hnp.arrays(np.int32, recent)),
        recent_item_values=draw(hnp.arrays(np.int32, recent)),
    )


@given(profiles())
def test_a_profile_survives_in_every_bit(profile: UserProfile) -> None:
    decoded = decode_profile(1, encode_profile(profile))
    for name, value in vars(profile).items():
        found = getattr(decoded, name)
        if isinstance(value, np.ndarray):
            assert found.dtype == value.dtype, name
            np.testing.assert_array_equal(found, value, name)
        else:
            assert found == value, name


def example(**changed: object) -> UserProfile:
    fields = {
        "user_id": 1,
        "segment": "F",
        "last_timestamp": 7,
        "terms": ("Drama",),
        "term_weights": np.ones(1, np.float32),
        "vector": np.ones(4, np.float32),
        "history": np.arange(3, dtype=np.int32),
        "history_labels": np.ones(3, np.int8),
        "history_timestamps": np.arange(3),
        "history_values": np.ones(3, np.float32),
    }
    return UserProfile(**{**fields, **changed})  # type: ignore[arg-type]


def test_a_row_of_history_costs_thirteen_bytes() -> None:
    empty = {name: np.empty(0, kind) for name, kind in (("history", np.int32), ("history_labels", np.int8))}
    empty |= {"history_timestamps": np.empty(0, np.int64), "history_values": np.empty(0, np.float32)}
    assert len(encode_profile(example())) - len(encode_profile(example(**empty))) == 3 * 13


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(value: bytes) -> None:
    with pytest.raises(StoreError, match="user 'Zoë'"):
        decode_profile("Zoë", b"\xff" + value)


def test_a_cut_value_is_refused() -> None:
    value = encode_profile(example(recent_rates=np.arange(2), recent_item_values=np.arange(2)))
    for length in range(len(value)):
        with pytest.raises(StoreError):
            decode_profile(1, value[:length])


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"terms": ("Dra\0ma",)}, "terms"),
        ({"terms": ("Drama", "War")}, "history"),
        ({"history_labels": np.ones(2, np.int8)}, "history"),
        ({"recent_rates": np.ones(2, np.int32)}, "history"),
    ],
)
def test_what_would_not_come_back_is_not_written(changed: dict[str, object], field: str) -> None:
    with pytest.raises(StoreError) as caught:
        encode_profile(example(**changed))
    assert caught.value.field == field
