"""Several small counters in one int64, so that one window sum moves all of them at once.

A user has a counter per term and per decade for each measure, and a window function costs the same whatever its column holds: three
21-bit counters to an integer make the arrays three times cheaper. A counter holds up to `LARGEST_COUNT`, and the
preprocessing refuses a log in which one user has more events than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

LARGEST_COUNT = 2**21 - 1


@dataclass(frozen=True)
class Packing:
    """Layout of counters in integers.

    Attributes:
        bits: of one counter.
        per_word: counters in one int64; bits * per_word < 64.
    """

    bits: int
    per_word: int

    def words(self, count: int) -> int:
        """Integers that `count` counters need."""
        return -(-count // self.per_word)

    def pack(self, flags: Sequence[ir.IntegerValue], prefix: str) -> dict[str, ir.IntegerValue]:
        """Columns `<prefix>0`, `<prefix>1`, ... that hold the counters' first values, int64."""
        packed = {}
        for word in range(self.words(len(flags))):
            total: ir.IntegerValue = ibis.literal(0, "int64")
            for place, flag in enumerate(flags[word * self.per_word : (word + 1) * self.per_word]):
                total = total + flag.cast("int64") * (1 << (self.bits * place))
            packed[f"{prefix}{word}"] = total
        return packed

    def unpack(self, table: ir.Table, prefix: str, count: int) -> list[ir.IntegerValue]:
        """The counters, in the order in which they were packed; a missing integer reads as zeros."""
        mask = (1 << self.bits) - 1
        return [
            (table[f"{prefix}{place // self.per_word}"].fill_null(0) >> (self.bits * (place % self.per_word))) & mask
            for place in range(count)
        ]


COUNTS = Packing(bits=21, per_word=3)
# sums of rates in 1/1024: 2**21 events of rate 1 fill 31 bits
RATES = Packing(bits=31, per_word=2)
