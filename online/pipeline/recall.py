"""Candidates of one request: every channel proposes, the merge rule orders, popular items fill up what is missing.

The vector channel is answered by the item index; item-to-item, term and popularity from the release's own arrays, whose scores
every candidate needs anyway. With the setting `recall.terms_from_index` the index answers the term channel too, in the same round
trip. Whoever found a candidate, it gets the score of every channel (data_exchange_center/recall_scores.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data_exchange_center.candidates import CHANNELS, best, feature_of, merged_scores, union
from data_exchange_center.errors import StoreError
from data_exchange_center.recall_scores import UserTaste, top_rows
from online.pipeline.context import RequestContext
from online.pipeline.query import Query
from online.pipeline.release_view import ReleaseView
from online.pipeline.visitor import Visitor
from online.stores.ports import Filters, Hits, ItemIndex, TermQuery, UserProfile, VectorQuery

FILL = "fill"  # stands for a channel when none found an item


def taste_of(profile: UserProfile) -> UserTaste:
    """What recall reads of a profile."""
    return UserTaste(
        vector=profile.vector,
        terms=profile.terms,
        term_weights=profile.term_weights,
        history=profile.history,
        history_labels=profile.history_labels,
        history_values=profile.history_values,
        segment=profile.segment,
    )


class ChannelScores:
    """Scores of one user, each channel computed over the catalog at most once."""

    def __init__(self, view: ReleaseView, taste: UserTaste) -> None:
        self.view, self.taste = view, taste
        self._items: np.ndarray | None = None
        self._terms: np.ndarray | None = None

    @property
    def item(self) -> np.ndarray:
        """`recall_item` of all items, float32 [items]."""
        if self._items is None:
            self._items = self.view.recall.item_scores(self.taste)
        return self._items

    @property
    def term(self) -> np.ndarray:
        """`recall_term` of all items, float32 [items]."""
        if self._terms is None:
            self._terms = self.view.recall.term_scores(self.taste)
        return self._terms

    def of(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """`recall_<channel>` of some items, float32 [N]."""
        recall = self.view.recall
        return {
            feature_of("vector"): recall.vector_scores(self.taste, rows),
            feature_of("item"): self.item[rows],
            feature_of("term"): self.term[rows],
            feature_of("popularity"): recall.popularity[recall.segment_number(self.taste.segment)][rows],
        }

    def with_affinity(self, rows: np.ndarray, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The channels' scores and, where the release has one, the affinity's."""
        affinity = self.view.recall.affinity
        if affinity is None:
            return scores
        return scores | affinity.scores(self.taste.history, self.taste.history_values, rows)


@dataclass(frozen=True)
class Candidates:
    """What will be scored.

    Attributes:
        rows: int32 [N], in merged order, best first; the filled-up ones last.
        scores: candidate feature -> float32 [N].
        hits: what each channel found.
    """

    rows: np.ndarray
    scores: dict[str, np.ndarray] = field(repr=False)
    hits: list[Hits] = field(repr=False)

    def found_by(self, rows: np.ndarray) -> list[dict[str, tuple[int, float]]]:
        """For each of these items: channel -> (rank from 1, that channel's score)."""
        found: list[dict[str, tuple[int, float]]] = [{} for _ in rows]
        place_of = {row: place for place, row in enumerate(rows.tolist())}
        for hits in self.hits:
            for rank, (row, score) in enumerate(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True), start=1):
                if row in place_of:
                    found[place_of[row]][hits.channel] = (rank, score)
        for place, row in enumerate(rows.tolist()):
            if not found[place]:
                found[place][FILL] = (int(np.flatnonzero(self.rows == row)[0]) + 1, 0.0)
        return found


def find_candidates(
    context: RequestContext,
    index: ItemIndex,
    visitor: Visitor,
    query: Query,
    eligible: np.ndarray,
    per_channel: int,
    size: int,
    *,
    terms_from_index: bool = False,
) -> Candidates:
    """The candidates of one request.

    Args:
        eligible: bool [items]; nothing else becomes a candidate.
        per_channel: items asked of each channel.
        terms_from_index: ask the index for the term channel too.
        size: candidates at most; when fewer are found, popular items fill up to `query.size`.
    """
    view = context.view
    scores = ChannelScores(view, taste_of(visitor.profile))
    wanted = query.channels or frozenset(CHANNELS)
    of_index = wanted & ({"vector", "term"} if terms_from_index else {"vector"})
    hits = _from_index(context, index, scores.taste, visitor.unwanted, query.filters, of_index, per_channel)
    # what the index holds is a copy of the release: an item beyond what this request may answer is not taken from it
    hits = [_eligible_only(found, eligible) for found in hits]
    if "item" in wanted and len(scores.taste.history):
        rows = top_rows(scores.item, eligible, per_channel)
        hits.append(Hits("item", rows, scores.item[rows]))
    if "term" in wanted - of_index and scores.taste.terms:
        rows = top_rows(scores.term, eligible & (scores.term > 0), per_channel)
        hits.append(Hits("term", rows, scores.term[rows]))
    order = view.popular(visitor.profile.segment)
    if "popularity" in wanted:
        popularity = view.recall.popularity[view.recall.segment_number(visitor.profile.segment)]
        rows = first_eligible(order, eligible, per_channel)
        hits.append(Hits("popularity", rows, popularity[rows]))
    if "item_index" in context.degraded and not any(len(found.rows) for found in hits) and eligible.any():
        context.without("recall")
    rows = union(found.rows for found in hits)
    by_channel = scores.of(rows)
    places = best(rows, merged_scores(by_channel, view.recall.weights), size)
    rows = rows[places]
    by_channel = {name: values[places] for name, values in by_channel.items()}
    if len(rows) < query.size:
        eligible = eligible.copy()
        eligible[rows] = False
        filled = first_eligible(order, eligible, query.size - len(rows))
        by_channel = {name: np.concatenate((by_channel[name], more)) for name, more in scores.of(filled).items()}
        rows = np.concatenate((rows, filled))
    return Candidates(rows, scores.with_affinity(rows, by_channel), hits)


def recall_scores(view: ReleaseView, visitor: Visitor, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every candidate feature of given items: float32 [N] each."""
    return view.recall.scores(taste_of(visitor.profile), rows)


def first_eligible(order: np.ndarray, eligible: np.ndarray, count: int) -> np.ndarray:
    """The first `count` eligible rows of an order; looks no further than it has to."""
    if count <= 0:
        return order[:0]
    found: list[np.ndarray] = []
    step, start = max(1024, 4 * count), 0
    while count > 0 and start < len(order):
        part = order[start : start + step]
        part = part[eligible[part]][:count]
        found.append(part)
        count -= len(part)
        start += step
    return np.concatenate(found) if found else order[:0]


def _from_index(
    context: RequestContext,
    index: ItemIndex,
    taste: UserTaste,
    unwanted: np.ndarray,
    filters: Filters,
    wanted: frozenset[str],
    k: int,
) -> list[Hits]:
    queries: list[VectorQuery | TermQuery] = []
    vector = context.view.recall.vector_of(taste) if "vector" in wanted else taste.vector[:0]
    if len(vector):
        queries.append(VectorQuery(vector, k))
    if "term" in wanted and taste.terms:
        queries.append(TermQuery(taste.terms, taste.term_weights, k))
    if not queries:
        return []
    try:
        release = context.view.release.id
        return context.ask("item_index", lambda timeout: index.search(release, queries, unwanted, filters, timeout))
    except StoreError as error:
        context.without("item_index", error)
        return []


def _eligible_only(hits: Hits, eligible: np.ndarray) -> Hits:
    kept = eligible[hits.rows]
    return hits if kept.all() else Hits(hits.channel, hits.rows[kept], hits.scores[kept])
