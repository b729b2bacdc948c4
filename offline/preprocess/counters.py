"""Many small counters in few int64 words, so that one sum moves all counters of a word at once.

A user has counters per term and per decade for each measure. A window function costs the same whatever its column holds, so
counters of 11 bits (enough for 2,047 events a user) in words of 63 bits make the arrays five times cheaper. Counters are
never negative and each is as wide as its largest possible sum, so no carry ever reaches a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ibis.expr.types as ir

WORD_BITS = 63  # of an int64, the sign left out


@dataclass(frozen=True)
class Layout:
    """Where each counter lies.

    Attributes:
        places: counter -> (word, lowest bit, bits).
    """

    places: Mapping[str, tuple[int, int, int]]

    @property
    def words(self) -> int:
        """Number of words."""
        return 1 + max((word for word, _, _ in self.places.values()), default=-1)

    def words_of(self, names: Iterable[str]) -> list[int]:
        """The words that hold these counters."""
        return sorted({self.places[name][0] for name in names})

    def pack(self, word: int, values: Mapping[str, ir.IntegerValue]) -> ir.IntegerValue | None:
        """One word of one row, int64; None when none of the values lies in it.

        Args:
            word: which one.
            values: counter -> value, int64; counters left out are 0.
        """
        total: ir.IntegerValue | None = None
        for name, value in values.items():
            place, low, _ = self.places[name]
            if place == word:
                shifted = value * (1 << low)
                total = shifted if total is None else total + shifted
        return total

    def read(self, words: Mapping[int, ir.IntegerValue], name: str) -> ir.IntegerValue:
        """A counter's value.

        Args:
            words: word -> summed column.
        """
        word, low, bits = self.places[name]
        return (words[word] >> low) & ((1 << bits) - 1)


def layout_of(widths: Sequence[tuple[str, int]]) -> Layout:
    """Places each counter into the first word that has room for it, so the first counters share the first word.

    Args:
        widths: (counter, bits of its largest sum).

    Raises:
        ValueError: a counter wider than a word.
    """
    places: dict[str, tuple[int, int, int]] = {}
    used: list[int] = []
    for name, bits in widths:
        if bits > WORD_BITS:
            raise ValueError(f"counter {name!r} needs {bits} bits, a word has {WORD_BITS}")
        word = next((word for word, taken in enumerate(used) if taken + bits <= WORD_BITS), len(used))
        if word == len(used):
            used.append(0)
        places[name] = (word, used[word], bits)
        used[word] += bits
    return Layout(places)
