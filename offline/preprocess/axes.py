"""What the elements of the array features stand for: terms and decades. Static properties of the catalog, not of events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_exchange_center import columns as c

DECADES = 9
FIRST_DECADE = 1920


@dataclass(frozen=True)
class Axes:
    """Meaning of the array features' elements.

    Attributes:
        terms: element j of every `*_term*` array belongs to `terms[j]`; elements beyond stay 0.
        term_length: length of these arrays.
        decades: whether items have a year; element j of every `*_decade*` array belongs to the years
            from `FIRST_DECADE + 10 j` on, older and newer ones to the first and last element, unknown years to none.
    """

    terms: tuple[str, ...]
    term_length: int
    decades: bool

    def as_json(self) -> dict[str, Any]:
        """For people and other programs who read the arrays."""
        return {
            "terms": list(self.terms),
            "term_length": self.term_length,
            "decades": [FIRST_DECADE + 10 * place for place in range(DECADES)] if self.decades else [],
        }


def axes_of(items: pa.Table, term_length: int) -> Axes:
    """The axes of a catalog: its terms by number of items, then by name, as many as the arrays have places.

    Args:
        items: the items table; terms and years may be absent.
        term_length: places in the term arrays, 0 when none is declared.
    """
    terms: list[str] = []
    if c.TERMS in items.column_names:
        counts: Counter[str] = Counter()
        for of_item in items[c.TERMS].to_pylist():
            counts.update(set(of_item or ()))
        terms = sorted(counts, key=lambda term: (-counts[term], term))[:term_length]
    return Axes(tuple(terms), term_length, c.YEAR in items.column_names)
