"""`/repair/predict`: how likely a shop is taken for a repair, from raw values, by the live release of `serve.predict_scene`."""

from __future__ import annotations

from flask import Blueprint, Response, request

from online.api import metrics
from online.api.http import json_response, read_body, request_id
from online.api.runtime import runtime
from online.api.schemas import PredictBody
from online.pipeline.predict import predict

blueprint = Blueprint("predict", __name__)

BRAND = "car_brand"


@blueprint.post("/repair/predict")
def repair() -> Response:
    """One score; a brand never seen before gets its id here."""
    own = runtime()
    view = own.predict_view()
    body = read_body(PredictBody)
    made = predict(
        view,
        own.vocabularies,
        own.stores.scorer,
        body.model_dump(),
        budget=own.budget,
        client=request.remote_addr or "",
    )
    for part in made.degraded:
        metrics.DEGRADED.labels(part).inc()
    return json_response(
        {
            "score": made.score,
            "matched_brand_id": made.ids[BRAND],
            "release": view.release.id,
            "request_id": request_id(),
            "degraded": list(made.degraded),
        }
    )
