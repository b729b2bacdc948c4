"""`/ml/rec`: a ranked list for a user."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import orjson
from flask import Blueprint, Response

from online.api import metrics
from online.api.http import encoded, read_body, read_query, request_id
from online.api.runtime import Runtime, runtime
from online.api.schemas import RECOMMEND_QUERY, RecommendBody, models
from online.pipeline.context import RequestContext
from online.pipeline.query import Answer, Query
from online.pipeline.recommend import recommend
from online.pipeline.release_view import ReleaseView
from online.stores.ports import Filters

blueprint = Blueprint("recommend", __name__)


@blueprint.post("/ml/rec")
def by_body() -> Response:
    """The list for a JSON body."""
    own = runtime()
    view = own.view()
    return _answer(own, view, read_body(models(view.user_type, view.item_type).recommend))


@blueprint.get("/ml/rec")
def by_query() -> Response:
    """The same for a query string."""
    own = runtime()
    view = own.view()
    model = models(view.user_type, view.item_type).recommend
    return _answer(own, view, read_query(model, RECOMMEND_QUERY))


def to_query(body: RecommendBody[Any, Any]) -> Query:
    """The pipeline's question for a validated body."""
    filters = Filters()
    if body.filters is not None:
        year = body.filters.year
        filters = Filters(
            terms=tuple(dict.fromkeys(body.filters.genres)),
            year_from=year.gte if year else None,
            year_to=year.lte if year else None,
        )
    return Query(
        user_id=body.userid,
        size=body.size,
        exclude=tuple(body.exclude),
        filters=filters,
        channels=frozenset(body.channels or ()),
        diversity=body.diversity,
        min_score=body.min_score,
        now=body.now,
        explain=body.explain,
    )


def _answer(own: Runtime, view: ReleaseView, body: RecommendBody[Any, Any]) -> Response:
    return Response(answered(own, view, body, request_id()), content_type="application/json")


def answered(own: Runtime, view: ReleaseView, body: RecommendBody[Any, Any], request_id: str) -> bytes:
    """The answer to a validated body as JSON; keeps and counts it."""
    context = RequestContext(view, request_id, own.budget, breakers=own.breakers)
    answer = recommend(context, own.stores, to_query(body), own.policy)
    own.lists.moved(context.live)  # this request stays with its release; the next ones should get the live one soon
    content = content_of(context, answer)
    if own.answers is not None:
        at = int(time.time())
        own.answers.put(context.request_id, body.userid, view.release.id, at, answer, shown=not body.explain)
    for part in context.degraded:
        metrics.DEGRADED.labels(part).inc()
    metrics.EXPLORED.inc(len(answer.explored))
    if answer.cold_start:
        metrics.COLD_STARTS.inc()
    for stage, spent in context.timings_ms.items():
        own.stage_seconds(stage).observe(spent / 1000.0)
    # the scores of a list were found finite when they came; raw features of an explained one may be anything
    return encoded(content) if answer.explanation is not None else orjson.dumps(content)


def content_of(context: RequestContext, answer: Answer) -> dict[str, Any]:
    """The response's JSON: schemas.RecommendAnswer."""
    items: list[dict[str, Any]] = [
        {"itemid": item, "score": score, "like": like}
        for item, score, like in zip(answer.item_ids, answer.score.tolist(), answer.like.tolist(), strict=True)
    ]
    content: dict[str, Any] = {
        "item_list": items,
        "release": context.view.release.id,
        "request_id": context.request_id,
        "cold_start": answer.cold_start,
        "degraded": list(context.degraded),
    }
    explanation = answer.explanation
    if explanation is not None:
        features = features_of(context.view, explanation.inputs, len(items))
        for place, item in enumerate(items):
            item["channels"] = {
                channel: {"rank": rank, "score": score}
                for channel, (rank, score) in explanation.channels[place].items()
            }
            item["features"] = features[place]
            if place in answer.explored:
                item["explored"] = answer.explored[place]
            item["logits"] = logits_of(explanation.scores.score_logit, explanation.scores.like_logit, place)
        content["scored"] = answer.scored
        content["timings_ms"] = {stage: round(spent, 4) for stage, spent in context.timings_ms.items()}
    return content


def logits_of(score_logit: np.ndarray, like_logit: np.ndarray, place: int) -> dict[str, float] | None:
    """The logits of one item; None when no model answered."""
    if not len(score_logit):
        return None
    return {"score": float(score_logit[place]), "like": float(like_logit[place])}


def features_of(view: ReleaseView, inputs: dict[str, np.ndarray], count: int) -> list[dict[str, Any]]:
    """Raw values of each item as JSON: the user's and the context's are repeated with every item."""
    shared = {
        feature.name: inputs[feature.name][0].tolist()
        if isinstance(inputs[feature.name][0], np.ndarray | np.generic)
        else inputs[feature.name][0]
        for feature in view.spec.of("user", "context")
        if feature.name in inputs
    }
    own = {
        feature.name: inputs[feature.name].tolist()
        for feature in view.spec.of("item", "candidate")
        if feature.name in inputs
    }
    return [{**shared, **{name: values[place] for name, values in own.items()}} for place in range(count)]
