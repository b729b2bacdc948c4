"""Health, metrics, the OpenAPI document and the pointer to it at `/`."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST

from online.api import metrics, openapi
from online.api.http import json_response
from online.api.runtime import runtime
from online.pipeline.live_release import LiveRelease
from online.pipeline.release_view import IdType

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def alive() -> Response:
    """200 while the process lives."""
    return json_response({"status": "alive"})


@blueprint.get("/readyz")
def ready() -> Response:
    """200 when a list can be answered, which a missing store alone does not prevent; 503 with the reason otherwise.

    A server of rows alone is ready when it can score them. `uploads` and `predictions` tell whether this worker can, in any case.
    """
    own = runtime()
    view, serve = own.releases.current(), own.settings.serve
    return json_response(
        {
            "ready": view is not None,
            "reason": "" if view is not None else own.releases.reason,
            "release": own.board.agreed(),
            "workers": {str(pid): release for pid, release in own.board.releases().items()},
            "uploads": scene_state(serve.upload_scene, own.rows),
            "predictions": scene_state(serve.predict_scene, own.predictions),
            "dependencies": {name: {"ok": not problem, "detail": problem} for name, problem in own.probe().items()},
        },
        200 if view is not None else 503,
    )


def scene_state(scene: str, releases: LiveRelease[Any]) -> dict[str, Any]:
    """Whether this worker can score the rows of a scene, and by which release."""
    view = releases.current()
    return {
        "ready": view is not None,
        "scene": scene,
        "release": view.release.id if view is not None else None,
        "reason": "" if view is not None else releases.reason,
    }


@blueprint.get("/metrics")
def prometheus() -> Response:
    """The metrics of all workers."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


@blueprint.get("/openapi.json")
def document() -> Response:
    """The contract, with ids of the types that the release in use declares (int64 before there is one)."""
    own = runtime()
    view = None if own.rows_only else own.lists.current()
    user: IdType = view.user_type if view is not None else "int64"
    item: IdType = view.item_type if view is not None else "int64"
    return json_response(openapi.document(user, item, bool(own.settings.serve.admin_token)))


@blueprint.get("/")
def root() -> Response:
    """Where to go from here."""
    own = runtime()
    view = own.releases.current()
    return json_response(
        {
            "name": "Marquee",
            "release": view.release.id if view is not None else None,
            "document": "/openapi.json",
            "example": "/ml/rec?userid=1&size=10",
        }
    )
