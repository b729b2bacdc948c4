"""A release as a process holds it: item ids and rows, what filters look at, the recall arrays, and the tables that stand in for
a store that is away. Arrays are memory-mapped or shared with the process that forked this one; nothing is written after
`load_view`, so threads share a view freely."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.axes import axes_of, term_length
from data_exchange_center.errors import DataError, ReleaseError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.input_blocks import InputBlock, blocks_of_release
from data_exchange_center.recall_scores import NOBODY, RecallArrays
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.user_updates import Standing
from online.pipeline.release_tables import ReleaseTables
from online.stores.item_arrays import memberships
from online.stores.ports import Id

IdType = Literal["int64", "string"]
ID_DTYPES: dict[IdType, type] = {"int64": np.int64, "string": object}

EVENTS = "item_events"
_NO_ROWS = np.empty(0, np.int32)


@dataclass(frozen=True)
class ReleaseView:
    """One release, opened.

    Attributes:
        user_type, item_type: how the log declares its ids.
        item_ids: [items], int64 or object of str; the place of an id is its item row.
        item_rows: item id -> row.
        years: int64 [items], 0 when unknown.
        terms: term -> int32 rows of the items that have it, ascending.
        blocks: what the graph takes packed features in; none when it takes them by name.
        snapshot: unix seconds, as of when the release's features hold.
        recall: arrays of the recall channels. tables: stand-ins for stores.
        item_events: int64 [items], events of each item at the snapshot; zeros when the release does not say.
        standing: what later events are judged against; None for a release whose user features stay as they were published.
    """

    release: Release
    spec: FeatureSpec
    user_type: IdType
    item_type: IdType
    item_ids: np.ndarray = field(repr=False)
    item_rows: dict[Id, int] = field(repr=False)
    years: np.ndarray = field(repr=False)
    terms: dict[str, np.ndarray] = field(repr=False)
    blocks: list[InputBlock] = field(repr=False)
    snapshot: int
    recall: RecallArrays = field(repr=False)
    tables: ReleaseTables = field(repr=False)
    item_events: np.ndarray = field(repr=False)
    standing: Standing | None = field(repr=False, default=None)

    @property
    def item_count(self) -> int:
        return len(self.item_ids)

    def rows_with_term(self, term: str) -> np.ndarray:
        """int32, ascending; empty for a term that no item has."""
        return self.terms.get(term, _NO_ROWS)

    def popular(self, segment: str) -> np.ndarray:
        """int32 [items]: all rows, the segment's most popular first."""
        order: np.ndarray = self.recall.popular_orders[self.recall.segment_number(segment)]
        return order

    def likeness_vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 [N, d]: item embeddings, without the bias and the constant that recall folds in."""
        vectors: np.ndarray = self.recall.vectors.item_vectors[rows, :-2]
        return vectors


def load_view(settings: Settings, release: str) -> ReleaseView:
    """Opens and verifies a release of the settings' store.

    Raises:
        ReleaseError: a file is missing, altered, or contradicts another; the message names it.
    """
    opened = find_release(settings, release)
    if opened.scene != settings.scene:
        raise ReleaseError(f"release {release} is of scene {opened.scene!r}, this server's is {settings.scene!r}")
    try:
        return view_of(opened)
    except (DataError, KeyError, pa.ArrowException) as error:
        raise ReleaseError(f"{opened.path}: {error}") from error


def view_of(release: Release) -> ReleaseView:
    """A release that is open already."""
    items = release.table("items")
    ids = items[c.ITEM_ID]
    item_type = _id_type(ids.type)
    item_ids = ids.to_numpy() if item_type == "int64" else np.array(ids.to_pylist(), object)
    spec = release.spec()
    recall = RecallArrays.open(release)
    if recall.item_count != len(item_ids):
        raise DataError(f"recall arrays hold {recall.item_count} items, the items table {len(item_ids)}")
    # what the arrays derive on first use is derived here, before a fork, and not by the first request
    recall.popular_orders  # noqa: B018
    one = np.ones(1, np.float32)
    recall.scores(replace(NOBODY, history=np.zeros(1, np.int32), history_labels=one, history_values=one), _NO_ROWS)
    features = release.table("item_features", [c.TIMESTAMP])
    return ReleaseView(
        release=release,
        spec=spec,
        user_type=_id_type(release.table("users", [c.USER_ID]).schema.field(c.USER_ID).type),
        item_type=item_type,
        item_ids=item_ids,
        item_rows={item: row for row, item in enumerate(item_ids.tolist())},
        years=items[c.YEAR].to_numpy() if c.YEAR in items.column_names else np.zeros(len(item_ids), np.int64),
        terms=_rows_by_term(items),
        blocks=blocks_of_release(release),
        snapshot=int(features[c.TIMESTAMP].to_numpy().max(initial=0)),
        recall=recall,
        tables=ReleaseTables(release, spec, recall.vectors.user_vectors),
        item_events=_item_events(release, spec, items),
        standing=_standing(release, spec, items),
    )


def _item_events(release: Release, spec: FeatureSpec, items: pa.Table) -> np.ndarray:
    if EVENTS not in {feature.name for feature in spec.item_features}:
        return np.zeros(len(items), np.int64)
    features = release.table("item_features", [c.ITEM_ID, EVENTS])
    place = pc.index_in(items[c.ITEM_ID], value_set=features[c.ITEM_ID].combine_chunks())
    found = pc.fill_null(pc.cast(features[EVENTS].take(place), pa.float64()), 0.0)
    return found.to_numpy().astype(np.int64)


def _standing(release: Release, spec: FeatureSpec, items: pa.Table) -> Standing | None:
    if "tables/item_standing.parquet" not in release.manifest["files"]:
        return None
    length = int(release.manifest["settings"]["features"]["history_length"])
    return Standing.of_tables(release.table("item_standing"), items, axes_of(items, term_length(spec)), length)


def _rows_by_term(items: pa.Table) -> dict[str, np.ndarray]:
    if c.TERMS not in items.column_names:
        return {}
    names = sorted({term for terms in items[c.TERMS].to_pylist() for term in terms or ()})
    rows, numbers = memberships(items, names)
    order = np.lexsort((rows, numbers))
    ends = np.cumsum(np.bincount(numbers, minlength=len(names)))
    parts = np.split(rows[order].astype(np.int32), ends[:-1]) if names else []
    return dict(zip(names, parts, strict=True))


def _id_type(kind: pa.DataType) -> IdType:
    return "string" if pa.types.is_string(kind) else "int64"
