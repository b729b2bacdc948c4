"""One pass from a question to a ranked list: user, recall, filter, features, score, order. Pure logic over the ports."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_exchange_center.errors import ReleaseError, StoreUnavailable
from data_exchange_center.input_blocks import unpack_inputs
from online.pipeline.assemble import take
from online.pipeline.context import RequestContext
from online.pipeline.explore import Exploration, explored
from online.pipeline.filters import eligible_items, rows_of
from online.pipeline.policy import Policy
from online.pipeline.query import Answer, Explanation, Query, Scores
from online.pipeline.recall import Candidates, find_candidates, recall_scores
from online.pipeline.release_view import ID_DTYPES, ReleaseView
from online.pipeline.rerank import by_score, diversified
from online.pipeline.score import gather, score
from online.pipeline.visitor import Visitor, read_visitor
from online.stores.ports import Id, Stores

log = logging.getLogger("marquee.pipeline")

WARM_UP_SECONDS = 10.0  # a store that hangs must not outlast the time that gunicorn gives a worker to come up


def propose(
    context: RequestContext, stores: Stores, visitor: Visitor, query: Query, eligible: np.ndarray, policy: Policy
) -> Candidates:
    """What will be scored for one question: recall and merge as the policy says.

    Args:
        eligible: bool [items]; nothing else becomes a candidate.
    """
    return find_candidates(
        context,
        stores.items,
        visitor,
        query,
        eligible,
        policy.per_channel,
        max(policy.prerank_size, query.size),
        terms_from_index=policy.terms_from_index,
    )


def recommend(context: RequestContext, stores: Stores, query: Query, policy: Policy) -> Answer:
    """The list for one question, from the context's release; what is missing on the way is noted in the context.

    The list has exactly `query.size` items when that many are eligible and reach `min_score`.
    """
    view = context.view
    with context.stage("user"):
        visitor = read_visitor(context, stores.users, policy, query)
        now = visitor.now
    with context.stage("recall"):
        eligible = eligible_items(view, visitor.unwanted, query.filters)
        candidates = propose(context, stores, visitor, query, eligible, policy)
        rows = candidates.rows
    if not len(rows):
        return Answer(rows, [], np.empty(0, np.float32), np.empty(0, np.float32), not visitor.known, now, 0)
    with context.stage("features"):
        item_ids = view.item_ids[rows]
        inputs = gather(context, stores.features, visitor, item_ids, candidates.scores)
    with context.stage("score"):
        scores = score(context, stores.scorer, inputs, len(rows))
    with context.stage("order"):
        places, drawn = ordered(context, query, policy.exploration, rows, scores)
        answer = Answer(
            rows=rows[places],
            item_ids=item_ids[places].tolist(),
            score=scores.score[places],
            like=scores.like[places],
            cold_start=not visitor.known,
            now=now,
            scored=len(rows),
            explanation=_explained(context, candidates, inputs, scores, places) if query.explain else None,
            explored=drawn,
        )
    context.timings_ms["total"] = (time.perf_counter() - context.started) * 1000.0
    return answer


def ordered(
    context: RequestContext, query: Query, exploration: Exploration | None, rows: np.ndarray, scores: Scores
) -> tuple[np.ndarray, dict[int, float]]:
    """The list of scored candidates: by score, diverse when that is asked for, the last places explored when the server does that.

    Args:
        rows: int32 [N], the candidates' item rows; scores are aligned with them.

    Returns:
        int64 [n], places of the candidates in the list's order, and place in the list -> propensity of what was explored.
    """
    view, size = context.view, query.size
    every = by_score(scores.score, query.min_score)
    # without a model nothing tells how likely an item is, and a list that is degraded already is not the place to experiment
    count = exploration.places(size) if exploration is not None and len(scores.score_logit) else 0
    count = count if len(every) > size else 0
    if query.diversity > 0:
        kept = diversified(every, scores.score, view.likeness_vectors(rows), query.diversity, size - count)
    else:
        kept = every[: size - count]
    if not count or exploration is None:
        return kept, {}
    rest = every[~np.isin(every, kept)]
    drawn, chances = explored(rest, scores.score_logit, view.item_events[rows], count, exploration, context.request_id)
    places = range(len(kept), len(kept) + len(drawn))
    return np.concatenate([kept, drawn]), dict(zip(places, chances.tolist(), strict=True))


@dataclass(frozen=True)
class ScoredItems:
    """What `score_items` answers, in the order asked.

    Attributes:
        unknown: items that the release does not know; they are scored as new ones, with default features.
    """

    scores: Scores
    unknown: list[Id]
    cold_start: bool
    inputs: dict[str, np.ndarray]


def score_items(
    context: RequestContext, stores: Stores, user_id: Id, item_ids: Sequence[Id], now: int | None, policy: Policy
) -> ScoredItems:
    """Scores given items for a user, as `recommend` would score them."""
    view = context.view
    query = Query(user_id=user_id, now=now)
    with context.stage("user"):
        visitor = read_visitor(context, stores.users, policy, query)
    with context.stage("features"):
        known = np.array([item in view.item_rows for item in item_ids], bool)
        of_known = recall_scores(view, visitor, rows_of(view, item_ids))
        widened = {name: np.zeros(len(item_ids), np.float32) for name in of_known}
        for name, values in of_known.items():
            widened[name][known] = values
        ids: np.ndarray = np.array(item_ids, ID_DTYPES[view.item_type])
        inputs = gather(context, stores.features, visitor, ids, widened)
    with context.stage("score"):
        scores = score(context, stores.scorer, inputs, len(item_ids))
    context.timings_ms["total"] = (time.perf_counter() - context.started) * 1000.0
    unknown = [item for item, is_known in zip(item_ids, known, strict=True) if not is_known]
    return ScoredItems(scores, unknown, not visitor.known, unpack_inputs(context.view.blocks, inputs))


def _explained(
    context: RequestContext, candidates: Candidates, inputs: dict[str, np.ndarray], scores: Scores, places: np.ndarray
) -> Explanation:
    kept = Scores(
        scores.score[places],
        scores.like[places],
        scores.score_logit[places] if len(scores.score_logit) else scores.score_logit,
        scores.like_logit[places] if len(scores.like_logit) else scores.like_logit,
    )
    return Explanation(candidates.found_by(candidates.rows[places]), take(inputs, context.view, places), kept)


def warm_up(view: ReleaseView, stores: Stores, policy: Policy) -> None:
    """Makes every store open this release in this process and answers two questions, so that no request has to wait for it.

    Raises:
        ReleaseError: features or model in the stores were made with another feature spec than the release's.
    """
    release = view.release
    promised = release.manifest["feature_spec_sha256"]
    context = RequestContext(view, "warm-up", WARM_UP_SECONDS)
    try:
        kept = {
            "feature store": stores.features.fingerprint(release.id),
            "scorer": stores.scorer.fingerprint(release.id, WARM_UP_SECONDS)["feature_spec_sha256"],
        }
        for place, spec in kept.items():
            if spec != promised:
                raise ReleaseError(
                    f"release {release.id}: the {place} holds feature spec {spec[:12]}, not {promised[:12]}; publish it"
                )
    except StoreUnavailable as error:
        context.without("scorer", error)
    for user in (view.tables.any_user(), None):
        if user is None:
            user = -1 if view.user_type == "int64" else "\0"
        recommend(context, stores, Query(user_id=user, size=20), policy)
    for part in context.degraded:
        log.warning("release %s: warming up without %s", release.id, part)
