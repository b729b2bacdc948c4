"""What the elements of the array features stand for: terms and decades. Static properties of the catalog, not of events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.user_measures import OF_AXIS

DECADES = 9
FIRST_DECADE = 1920
TERM_ARRAYS = ("item_terms", *(f"user_term_{kind}" for kind in OF_AXIS))


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


def term_length(spec: FeatureSpec) -> int:
    """Length of the term arrays, 0 when the spec declares none.

    Raises:
        SpecError: arrays over the same axis have different lengths, or a decade array is not as long as there are decades.
    """
    lengths = {}
    for feature in spec.features:
        if feature.name in TERM_ARRAYS:
            lengths[feature.name] = feature.length
        if (feature.name == "item_decade" or feature.name.startswith("user_decade_")) and feature.length != DECADES:
            raise SpecError(
                f"feature {feature.name!r} has length {feature.length}; decade arrays have {DECADES} elements",
                field=feature.name,
            )
    if len(set(lengths.values())) > 1:
        raise SpecError(f"term arrays are element by element the same terms, so their lengths must agree: {lengths}")
    return max(lengths.values(), default=0)
