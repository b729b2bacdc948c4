"""Candidates' raw features and their scores, and what stands in when a store does not answer."""

from __future__ import annotations

import numpy as np

from data_exchange_center.errors import StoreError
from online.pipeline.assemble import assemble
from online.pipeline.context import RequestContext
from online.pipeline.query import Scores
from online.pipeline.since_release import up_to_date
from online.pipeline.visitor import Visitor
from online.stores.ports import FeatureRows, FeatureStore, Scorer

_NONE = np.empty(0, np.float32)


def gather(
    context: RequestContext,
    features: FeatureStore,
    visitor: Visitor,
    item_ids: np.ndarray,
    recall_scores: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Every input of the graph for these candidates; features of a store that is away come from the release on disk."""
    view = context.view
    try:
        user = context.ask("user_features", lambda timeout: features.user(view.release.id, visitor.user_id, timeout))
    except StoreError as error:
        context.without("user_features", error)
        user = view.tables.user_features(visitor.user_id)
    user = up_to_date(view, user, visitor.published, visitor.events)
    items = _items(context, features, item_ids)
    return assemble(view, visitor.user_id, item_ids, visitor.now, user, items, recall_scores)


def _items(context: RequestContext, features: FeatureStore, item_ids: np.ndarray) -> FeatureRows:
    try:
        return features.items(context.view.release.id, item_ids)
    except StoreError as error:
        context.without("item_features", error)
        return context.view.tables.item_features(item_ids.tolist())


def score(context: RequestContext, scorer: Scorer, inputs: dict[str, np.ndarray], count: int) -> Scores:
    """The model's outputs; without the scorer, scores that fall with the place among the candidates.

    Args:
        count: candidates, in merged order: best recalled first.
    """
    try:
        outputs = context.ask("scorer", lambda timeout: scorer.score(context.view.release.id, inputs, timeout))
        scores = Scores(outputs["score"], outputs["like"], outputs["score_logit"], outputs["like_logit"])
        if not (np.isfinite(scores.score_logit).all() and np.isfinite(scores.like_logit).all()):
            raise StoreError(f"scorer: the model of {context.view.release.id} answers values that are not finite")
        return scores
    except StoreError as error:
        context.without("scorer", error)
        falling = (1.0 - np.arange(count, dtype=np.float32) / np.float32(max(count, 1))).astype(np.float32)
        return Scores(falling, falling, _NONE, _NONE)
