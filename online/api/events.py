"""`/ml/events`: what users did after the release was made."""

from __future__ import annotations

from flask import Blueprint, Response

from data_exchange_center.errors import StoreError
from online.api import metrics
from online.api.http import json_response, read_body, request_id
from online.api.runtime import runtime
from online.api.schemas import models
from online.stores.ports import Event

blueprint = Blueprint("events", __name__)


@blueprint.post("/ml/events")
def events() -> Response:
    """Stores the events durably, then answers 202; 503 when they can't be, and then nothing is known to be stored."""
    own = runtime()
    view = own.view()
    body = read_body(models(view.user_type, view.item_type).events)
    batch = [
        Event(
            event_id=entry.event_id,
            user_id=entry.userid,
            item_id=entry.itemid,
            event=entry.event,
            value=entry.value,
            timestamp=entry.timestamp,
            request_id=entry.request_id,
        )
        for entry in body.events
    ]
    try:
        accepted = own.stores.users.append_events(own.settings.scene, batch, own.budget)
    except StoreError:
        metrics.EVENTS.labels("refused").inc(len(batch))
        raise
    duplicates = len(batch) - accepted
    metrics.EVENTS.labels("accepted").inc(accepted)
    metrics.EVENTS.labels("duplicate").inc(duplicates)
    return json_response({"accepted": accepted, "duplicates": duplicates, "request_id": request_id()}, 202)
