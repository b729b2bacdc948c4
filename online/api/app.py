"""The Flask application: routes, errors, the request id and the request metrics around a runtime."""

from __future__ import annotations

import time

from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from online.api import admin, errors, events, health, metrics, predict, recommend, score, upload
from online.api.http import REQUEST_ID, request_id
from online.api.list_door import ListDoor
from online.api.runtime import EXTENSION, Runtime


def build_app(own: Runtime) -> Flask:
    """An application that answers from `own`, which may be opened later (after a fork)."""
    app = Flask("marquee", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = own.settings.serve.max_body_bytes
    app.extensions[EXTENSION] = own
    for module in (recommend, score, events, upload, predict, health, admin):
        app.register_blueprint(module.blueprint)
    errors.register(app)
    if own.settings.serve.trusted_proxies:
        # the address alone: nothing here depends on the scheme or the host that a proxy was asked for
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=own.settings.serve.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    app.wsgi_app = ListDoor(own, app.wsgi_app)  # type: ignore[method-assign]

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers[REQUEST_ID] = request_id()
        route = request.url_rule.rule if request.url_rule is not None else "unknown"
        metrics.REQUESTS.labels(route, response.status_code).inc()
        metrics.LATENCY.labels(route).observe(time.perf_counter() - g.started)
        return response

    return app
