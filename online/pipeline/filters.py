"""Which items may be answered at all: what the user asked for, has not met before and nobody blocked."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from online.pipeline.release_view import ReleaseView
from online.stores.ports import Filters, Id


def rows_of(view: ReleaseView, ids: Iterable[Id]) -> np.ndarray:
    """Item rows of these ids, int32; ids that the release does not know are passed over."""
    rows = view.item_rows
    return np.array([rows[item] for item in ids if item in rows], np.int32)


def eligible_items(view: ReleaseView, unwanted: np.ndarray, filters: Filters) -> np.ndarray:
    """Bool [items]: meets the filters and is not among the unwanted rows.

    Args:
        unwanted: int32 item rows, in any order, repetitions allowed.
        filters: an item without a year is in no year range; a term that no item has is met by none.
    """
    eligible = np.ones(view.item_count, bool)
    if filters.terms:
        eligible[:] = False
        for term in filters.terms:
            eligible[view.rows_with_term(term)] = True
    if filters.year_from is not None or filters.year_to is not None:
        years = view.years
        eligible &= years > 0
        if filters.year_from is not None:
            eligible &= years >= filters.year_from
        if filters.year_to is not None:
            eligible &= years <= filters.year_to
    eligible[unwanted] = False
    return eligible
