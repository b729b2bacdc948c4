"""`/admin/...`: publish, rollback, reload, and the items that are in no answer. Off (404) when the settings hold no token."""

from __future__ import annotations

import hmac
import time
from typing import Any

from flask import Blueprint, Response, abort, request

from data_exchange_center.errors import (
    InvalidRequest,
    LockHeld,
    MarqueeError,
    ReleaseError,
    SettingsError,
    StoreError,
    StoreUnavailable,
)
from data_exchange_center.programs import ProgramFailed, run_program
from online.api import metrics
from online.api.errors import error_response
from online.api.http import json_response, read_body, request_id
from online.api.runtime import runtime
from online.api.schemas import AdminPublishBody, AdminReloadBody, AdminRollbackBody, models

blueprint = Blueprint("admin", __name__, url_prefix="/admin")

FOLLOW_SECONDS = 10.0
PUBLISH = "offline_to_online/publish.py"
STORE_SECONDS = 5.0  # that the user store may take


@blueprint.before_request
def authorized() -> Response | None:
    """Lets a request through when it carries the token; the comparison takes the same time wherever they differ."""
    token = runtime().settings.serve.admin_token
    if not token:
        abort(404)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return None
    refused = error_response(401, "unauthorized", "send the token as Authorization: Bearer <token>")
    refused.headers["WWW-Authenticate"] = "Bearer"
    return refused


@blueprint.post("/publish")
def publish() -> Response:
    """Publishes a release (the newest by default) into every store and makes it live; answers when it is."""
    body = read_body(AdminPublishBody)
    return _done(_run([], body.release))


@blueprint.post("/rollback")
def rollback() -> Response:
    """Makes the release before (or a named one) live again."""
    body = read_body(AdminRollbackBody)
    return _done(_run(["--rollback"], body.release))


@blueprint.post("/reload")
def reload() -> Response:
    """Makes this worker look at the pointer now; answers with the release that it then answers from."""
    read_body(AdminReloadBody)
    own = runtime()
    started = time.perf_counter()
    before = own.releases.current()
    view = own.releases.refresh()
    return json_response(
        {
            "release": view.release.id if view is not None else None,
            "previous": before.release.id if before is not None else None,
            "seconds": round(time.perf_counter() - started, 3),
            "stores": {},
        }
    )


@blueprint.post("/items/block")
def block() -> Response:
    """Takes items out of every list, on every worker and across releases, from the next request on."""
    return _changed(blocked=True)


@blueprint.post("/items/unblock")
def unblock() -> Response:
    """Lets items in again."""
    return _changed(blocked=False)


@blueprint.get("/items/blocked")
def blocked() -> Response:
    """The items that are in no list."""
    own = runtime()
    held = own.stores.users.blocked(own.settings.scene, STORE_SECONDS)
    return json_response({"itemids": sorted(held, key=lambda item: (isinstance(item, str), item))})


def _changed(*, blocked: bool) -> Response:
    own = runtime()
    view = own.view()
    items = read_body(models(view.user_type, view.item_type).items).itemids
    outcome = "blocked" if blocked else "unblocked"
    scene, users = own.settings.scene, own.stores.users
    try:
        changed = users.block(scene, items, STORE_SECONDS, blocked=blocked)
    except StoreError:
        metrics.BLOCKINGS.labels("refused").inc(len(items))
        raise
    metrics.BLOCKINGS.labels(outcome).inc(changed)
    return json_response(
        {
            "changed": changed,
            "blocked": len(users.blocked_copy(scene)),
            "unknown_items": [item for item in dict.fromkeys(items) if item not in view.item_rows],
            "request_id": request_id(),
        }
    )


def _run(arguments: list[str], release: str | None) -> dict[str, Any]:
    own = runtime()
    chosen = [f"--release={release}"] if release is not None else []
    try:
        return run_program(PUBLISH, [*arguments, *chosen], own.settings)
    except ProgramFailed as error:
        for known in (LockHeld, StoreUnavailable, SettingsError):
            if error.code == known.code:
                raise known(error.message) from error
        if error.code == ReleaseError.code and release is not None:
            raise InvalidRequest(error.message, field="release") from error
        raise MarqueeError(error.message) from error


def _done(result: dict[str, Any]) -> Response:
    own = runtime()
    own.releases.refresh()
    deadline = time.monotonic() + FOLLOW_SECONDS
    while own.board.agreed() != result.get("release") and time.monotonic() < deadline:
        time.sleep(0.02)  # the other workers follow within the polling time
    return json_response(
        {
            "release": result.get("release"),
            "previous": result.get("previous"),
            "seconds": result.get("seconds", 0.0),
            "stores": result.get("stores", {}),
        }
    )
