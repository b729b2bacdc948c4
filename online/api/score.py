"""`/ml/score`: scores of given items, for checks and for other systems' candidates."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from online.api import metrics
from online.api.http import json_response, read_body, request_id
from online.api.recommend import features_of, logits_of
from online.api.runtime import runtime
from online.api.schemas import models
from online.pipeline.context import RequestContext
from online.pipeline.recommend import score_items

blueprint = Blueprint("score", __name__)


@blueprint.post("/ml/score")
def score() -> Response:
    """Scores in the order asked."""
    own = runtime()
    view = own.view()
    body = read_body(models(view.user_type, view.item_type).score)
    context = RequestContext(view, request_id(), own.budget, breakers=own.breakers)
    scored = score_items(context, own.stores, body.userid, body.itemids, body.now, own.policy)
    content: dict[str, Any] = {
        "itemids": body.itemids,
        "score": scored.scores.score.tolist(),
        "like": scored.scores.like.tolist(),
        "unknown_items": scored.unknown,
        "release": view.release.id,
        "request_id": context.request_id,
        "cold_start": scored.cold_start,
        "degraded": list(context.degraded),
    }
    if body.explain:
        features = features_of(view, scored.inputs, len(body.itemids))
        content["items"] = [
            {"features": values, "logits": logits_of(scored.scores.score_logit, scored.scores.like_logit, place)}
            for place, values in enumerate(features)
        ]
        content["timings_ms"] = {stage: round(spent, 4) for stage, spent in context.timings_ms.items()}
    for part in context.degraded:
        metrics.DEGRADED.labels(part).inc()
    return json_response(content)
