"""int64 id -> row of an embedding table, for ids that nobody knew before training saw them.

A hash table with open addressing and linear probing, in numpy arrays, its loops compiled by numba: a batch of ids costs a few
nanoseconds each. An id's home slot is the upper bits of its mixed value, so that a table of twice the slots holds the same ids in
the same order, and growing it is one pass from front to back over both.

A slot holds an id, when it was last seen, and one number: its row, or, until it was seen often enough to own one, how often it
was seen (negative). Nothing depends on the layout of the slots: the same ids in the same order give the same rows, before and
after a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from data_exchange_center.vocabulary import PADDING, UNKNOWN
from offline.models.reserved import reserve

SLOT = np.dtype([("id", np.int64), ("value", np.int32), ("seen", np.int32)])  # value 0: empty
FULLEST = 0.6  # share of the slots that may be taken
FIRST_SLOTS = 1024


class RowPool:
    """The rows of one table that ids can own: those given back first, then those never used, in order.

    Args:
        first: rows below it are never given out.
        limit: rows the table may have.
    """

    def __init__(self, first: int, limit: int) -> None:
        self.counts = np.array([first, 0, limit], np.int64)  # rows ever used, rows given back, limit
        self.free = reserve(limit, 1, torch.int32).numpy()[:, 0]

    @property
    def used(self) -> int:
        """Rows ever used: every row in use lies below."""
        return int(self.counts[0])

    @property
    def limit(self) -> int:
        """Rows the table may have."""
        return int(self.counts[2])

    @limit.setter
    def limit(self, rows: int) -> None:
        self.counts[2] = rows

    def give_back(self, rows: np.ndarray) -> None:
        """Takes rows back; they are given out again in ascending order before any new one."""
        start = self.counts[1]
        self.free[start : start + len(rows)] = np.sort(rows)[::-1]
        self.counts[1] += len(rows)


@dataclass
class Found:
    """What a look-up that learns found.

    Attributes:
        rows: int64, one an id.
        admitted: int64, rows that ids came to own just now, in order of arrival.
        full: how many ids had to stay on UNK because the pool had no row left.
    """

    rows: np.ndarray
    admitted: np.ndarray
    full: int


class IdMap:
    """The ids of one feature (or of several that share a table) and their rows.

    Args:
        pool: where rows come from; maps of one table share it.
        admit_after: sightings before an id owns a row; until then it is UNK.
        padding: the id that stands for no element and is row PADDING; None: every id is an id.
    """

    def __init__(self, pool: RowPool, admit_after: int = 1, padding: int | None = None) -> None:
        self.pool, self.admit_after, self.padding = pool, admit_after, padding
        self._slots = np.zeros(FIRST_SLOTS, SLOT)
        self._taken = np.zeros(1, np.int64)

    def __len__(self) -> int:
        """Ids known, with or without a row."""
        return int(self._taken[0])

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Rows of ids, int64; UNKNOWN for those without one. Learns nothing."""
        rows = np.empty(len(ids), np.int64)
        _find(self._slots, ids, rows, *self._padding())
        return rows

    def learn(self, ids: np.ndarray, now: int) -> Found:
        """Rows of ids, which count as seen `now`; ids that were seen often enough come to own one.

        Args:
            ids: int64 [n]; every occurrence is one sighting.
        """
        self._make_room(len(ids))
        rows, admitted = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
        counts = _learn(
            self._slots, self._taken, self.pool.counts, self.pool.free, ids, rows, admitted, self.admit_after, now,
            *self._padding(),
        )  # fmt: skip
        return Found(rows, admitted[: counts[0]], counts[1])

    def forget(self, before: int) -> int:
        """Drops ids last seen before that moment and gives their rows back. Returns how many owned one."""
        kept = np.empty(len(self), SLOT)
        rows = np.empty(len(self), np.int32)
        counts = _split(self._slots, before, kept, rows)
        self._rebuild(kept[: counts[0]])
        self.pool.give_back(rows[: counts[1]])
        return counts[1]

    def entries(self) -> np.ndarray:
        """All slots that are taken, by id."""
        taken = self._slots[self._slots["value"] != 0]
        return taken[np.argsort(taken["id"])]

    def restore(self, entries: np.ndarray) -> None:
        """Holds exactly these entries from now on; rows and pool are the caller's to match."""
        self._rebuild(entries)

    def _padding(self) -> tuple[bool, int]:
        return self.padding is not None, self.padding or 0

    def _make_room(self, more: int) -> None:
        slots = len(self._slots)
        while len(self) + more > FULLEST * slots:
            slots *= 2
        if slots > len(self._slots):
            grown = _new_slots(slots)
            _insert(grown, self._slots)
            self._slots = grown

    def _rebuild(self, entries: np.ndarray) -> None:
        slots = FIRST_SLOTS
        while len(entries) > FULLEST * slots:
            slots *= 2
        self._slots = _new_slots(slots)
        _insert(self._slots, entries)
        self._taken[0] = len(entries)


def _new_slots(count: int) -> np.ndarray:
    return reserve(count, SLOT.itemsize, torch.uint8).numpy().reshape(-1).view(SLOT)


@njit(cache=True, inline="always")
def _home(key, shift):  # type: ignore[no-untyped-def]
    """Home slot: upper bits of the id mixed as by MurmurHash3's finalizer (public domain, Austin Appleby)."""
    mixed = np.uint64(key)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return np.int64(mixed >> shift)


@njit(cache=True)
def _shift(slots):  # type: ignore[no-untyped-def]
    bits = 0
    while (1 << bits) < slots:
        bits += 1
    return np.uint64(64 - bits)


@njit(cache=True)
def _find(slots, ids, rows, has_padding, padding):  # type: ignore[no-untyped-def]
    last, shift = len(slots) - 1, _shift(len(slots))
    for place in range(len(ids)):
        key = ids[place]
        rows[place] = UNKNOWN
        if has_padding and key == padding:
            rows[place] = PADDING
            continue
        slot = _home(key, shift)
        while slots[slot].value != 0:
            if slots[slot].id == key:
                rows[place] = max(slots[slot].value, UNKNOWN)
                break
            slot = (slot + 1) & last


@njit(cache=True)
def _learn(slots, taken, pool, free, ids, rows, admitted, admit_after, now, has_padding, padding):  # type: ignore[no-untyped-def]
    last, shift = len(slots) - 1, _shift(len(slots))
    new, full = 0, 0
    for place in range(len(ids)):
        rows[place] = _home(ids[place], shift)
        admitted[place] = slots[rows[place]].id  # touched without a branch, so that the waits for memory overlap
    for place in range(len(ids)):
        key, slot = ids[place], rows[place]
        if has_padding and key == padding:
            rows[place] = PADDING
            continue
        while slots[slot].value != 0 and slots[slot].id != key:
            slot = (slot + 1) & last
        value = slots[slot].value
        if value == 0:
            slots[slot].id = key
            taken[0] += 1
        slots[slot].seen = now
        if value <= 0:
            value -= 1
            if -value >= admit_after:
                if pool[1] > 0:
                    pool[1] -= 1
                    value = free[pool[1]]
                elif pool[0] < pool[2]:
                    value = pool[0]
                    pool[0] += 1
                else:
                    value, full = -admit_after, full + 1
                if value > 0:
                    admitted[new] = value
                    new += 1
            slots[slot].value = value
        rows[place] = max(value, UNKNOWN)
    return new, full


@njit(cache=True)
def _insert(slots, entries):  # type: ignore[no-untyped-def]
    last, shift = len(slots) - 1, _shift(len(slots))
    for place in range(len(entries)):
        if entries[place].value != 0:
            slot = _home(entries[place].id, shift)
            while slots[slot].value != 0:
                slot = (slot + 1) & last
            slots[slot] = entries[place]


@njit(cache=True)
def _split(slots, before, kept, rows):  # type: ignore[no-untyped-def]
    keep, gone = 0, 0
    for slot in range(len(slots)):
        if slots[slot].value != 0:
            if slots[slot].seen >= before:
                kept[keep] = slots[slot]
                keep += 1
            elif slots[slot].value > 0:
                rows[gone] = slots[slot].value
                gone += 1
    return keep, gone
