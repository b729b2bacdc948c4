"""Every error as `{"error": {"code", "message", "field"}}`."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from data_exchange_center.errors import MarqueeError
from online.api.http import json_response, request_id

log = logging.getLogger("marquee.api")

_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}


def error_response(status: int, code: str, message: str, field: str | None = None) -> Response:
    """One error in the contract's form."""
    return json_response({"error": {"code": code, "message": message, "field": field}}, status)


def register(app: Flask) -> None:
    """Installs the handlers: our own errors know their status, werkzeug's are translated, anything else is a bug."""

    @app.errorhandler(MarqueeError)
    def own(error: MarqueeError) -> Response:
        if error.http_status >= 500:
            log.error("request %s: %s: %s", request_id(), error.code, error.message)
        return error_response(error.http_status, error.code, error.message, error.field)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        made = error_response(status, _CODES.get(status, "internal"), error.description or error.name)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                made.headers[name] = value
        return made

    @app.errorhandler(Exception)
    def bug(error: Exception) -> tuple[Response, int] | Response:
        log.exception("request %s: %s", request_id(), type(error).__name__, exc_info=error)
        return error_response(500, "internal", f"an internal error; the log has more under request id {request_id()}")


def error_schema() -> dict[str, Any]:
    """The OpenAPI description of an error answer."""
    return {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}}
