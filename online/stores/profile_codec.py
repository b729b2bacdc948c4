"""A user profile as one compact value of bytes, and back.

Little-endian, version 1:

    header   version u8, flags u8, segment bytes u16, terms u16, bytes of terms u32, vector elements u16, history rows u32,
             last_timestamp i64, base timestamp i64
    segment  utf-8
    terms    utf-8, joined by NUL
    float32  term weights, vector, history values
    int32    history (item rows)
    int32    history timestamps minus the base timestamp (int64 and no base when FLAG_WIDE is set: they span over 68 years)
    int8     history labels
    with FLAG_RECENT: rows u32, int32 recent rates, int32 recent item values

A history row costs 13 bytes. The user's id is not part of the value: the key says it.
"""

from __future__ import annotations

import struct

import numpy as np

from data_exchange_center.errors import StoreError
from online.stores.ports import Id, UserProfile

VERSION = 1
FLAG_WIDE = 1
FLAG_RECENT = 2
_HEADER = struct.Struct("<BBHHIHIqq")
_RECENT = struct.Struct("<I")
_INT32_MAX = 2**31 - 1


def encode_profile(profile: UserProfile) -> bytes:
    """The profile as bytes; StoreError when a term holds a NUL character or a count does not fit."""
    segment = profile.segment.encode()
    terms = "\0".join(profile.terms).encode()
    if terms.count(b"\0") != max(len(profile.terms) - 1, 0):
        raise StoreError(f"user {profile.user_id!r}: a term holds a NUL character: {profile.terms!r}", field="terms")
    rows = (profile.history, profile.history_labels, profile.history_timestamps, profile.history_values)
    sizes = {len(column) for column in rows}
    recent = (profile.recent_rates, profile.recent_item_values)
    if len(sizes) > 1 or len(profile.terms) != len(profile.term_weights) or len(recent[0]) != len(recent[1]):
        raise StoreError(f"user {profile.user_id!r}: history or terms are of unequal length", field="history")
    times = np.asarray(profile.history_timestamps, np.int64)
    base = int(times.min()) if len(times) else 0
    wide = bool(len(times)) and int(times.max()) - base > _INT32_MAX
    try:
        header = _HEADER.pack(
            VERSION,
            (FLAG_WIDE if wide else 0) | (FLAG_RECENT if len(recent[0]) else 0),
            len(segment),
            len(profile.terms),
            len(terms),
            len(profile.vector),
            len(profile.history),
            profile.last_timestamp,
            0 if wide else base,
        )
    except struct.error as error:
        raise StoreError(f"user {profile.user_id!r}: the profile does not fit its encoding: {error}") from error
    return b"".join(
        (
            header,
            segment,
            terms,
            np.asarray(profile.term_weights, "<f4").tobytes(),
            np.asarray(profile.vector, "<f4").tobytes(),
            np.asarray(profile.history_values, "<f4").tobytes(),
            np.asarray(profile.history, "<i4").tobytes(),
            times.astype("<i8").tobytes() if wide else (times - base).astype("<i4").tobytes(),
            np.asarray(profile.history_labels, "<i1").tobytes(),
            _recent_bytes(*recent) if len(recent[0]) else b"",
        )
    )


def _recent_bytes(rates: np.ndarray, values: np.ndarray) -> bytes:
    return _RECENT.pack(len(rates)) + np.asarray(rates, "<i4").tobytes() + np.asarray(values, "<i4").tobytes()


def decode_profile(user_id: Id, value: bytes) -> UserProfile:
    """The profile that `encode_profile` made; its arrays are read-only views of the value (timestamps are a copy)."""
    try:
        version, flags, segment_bytes, terms, terms_bytes, dimension, rows, last, base = _HEADER.unpack_from(value)
    except struct.error as error:
        raise StoreError(f"user {user_id!r}: {len(value)} bytes are not a profile: {error}") from error
    if version != VERSION:
        raise StoreError(
            f"user {user_id!r}: profile version {version}, this code reads {VERSION}; publish the release again"
        )
    wide = flags & FLAG_WIDE
    expected = _HEADER.size + segment_bytes + terms_bytes + 4 * (terms + dimension) + rows * (17 if wide else 13)
    recent = 0
    if flags & FLAG_RECENT:
        if len(value) >= expected + _RECENT.size:
            (recent,) = _RECENT.unpack_from(value, expected)
        expected += _RECENT.size + 8 * recent
    if len(value) != expected:
        raise StoreError(f"user {user_id!r}: the profile has {len(value)} bytes, its header says {expected}")
    at = _HEADER.size
    segment = value[at : at + segment_bytes].decode()
    at += segment_bytes
    names = value[at : at + terms_bytes].decode()
    at += terms_bytes
    floats = np.frombuffer(value, "<f4", terms + dimension + rows, at)
    at += floats.nbytes
    history = np.frombuffer(value, "<i4", rows, at)
    at += history.nbytes
    times = np.frombuffer(value, "<i8" if wide else "<i4", rows, at)
    at += times.nbytes
    return UserProfile(
        user_id=user_id,
        segment=segment,
        last_timestamp=last,
        terms=tuple(names.split("\0")) if terms else (),
        term_weights=floats[:terms],
        vector=floats[terms : terms + dimension],
        history=history,
        history_labels=np.frombuffer(value, "<i1", rows, at),
        history_timestamps=times.astype(np.int64) + base,
        history_values=floats[terms + dimension :],
        recent_rates=np.frombuffer(value, "<i4", recent, len(value) - 8 * recent),
        recent_item_values=np.frombuffer(value, "<i4", recent, len(value) - 4 * recent),
    )
