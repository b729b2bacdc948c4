"""The way in for the common request, `POST /ml/rec`: one that is in order is answered without Flask around it.

For an answer of three milliseconds, contexts, routing and response objects are a sixth of the work. What this door does not know
how to answer (another route, another content type, a body that is not valid, a server that is not ready, anything unexpected) goes
on to Flask whole, which answers it, errors included; `online/api/recommend.py` makes the list either way.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from data_exchange_center.errors import MarqueeError
from online.api import metrics
from online.api.http import REQUEST_ID, allowed_request_id
from online.api.recommend import answered
from online.api.runtime import Runtime
from online.api.schemas import models

log = logging.getLogger("marquee.api")

ROUTE = "/ml/rec"
Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class ListDoor:
    """WSGI in front of WSGI.

    Args:
        own: what answers.
        beyond: the application that gets every other request.
    """

    def __init__(self, own: Runtime, beyond: Application) -> None:
        self._own, self._beyond = own, beyond
        self._most_bytes = own.settings.serve.max_body_bytes

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == ROUTE and environ["REQUEST_METHOD"] == "POST":
            started = time.perf_counter()
            body = self._body(environ)
            request_id = allowed_request_id(environ.get("HTTP_X_REQUEST_ID", ""))
            made = self._list(body, request_id) if body is not None else None
            if made is not None:
                headers = [("Content-Type", "application/json"), ("Content-Length", str(len(made)))]
                start_response("200 OK", [*headers, (REQUEST_ID, request_id)])
                metrics.LISTS_ANSWERED.inc()
                metrics.LIST_LATENCY.observe(time.perf_counter() - started)
                return [made]
        return self._beyond(environ, start_response)

    def _body(self, environ: Environ) -> bytes | None:
        """The body, which stays in the environment; None when it is not one that comes whole and as JSON."""
        length = environ.get("CONTENT_LENGTH", "")
        plain = environ.get("CONTENT_TYPE") == "application/json" and "HTTP_TRANSFER_ENCODING" not in environ
        if not plain or not length.isdecimal() or int(length) > self._most_bytes:
            return None
        body: bytes = environ["wsgi.input"].read(int(length))
        environ["wsgi.input"] = io.BytesIO(body)
        return body if len(body) == int(length) else None

    def _list(self, body: bytes, request_id: str) -> bytes | None:
        try:
            view = self._own.view()
            question = models(view.user_type, view.item_type).recommend.model_validate_json(body)
            return answered(self._own, view, question, request_id)
        except (ValidationError, MarqueeError):
            return None
        except Exception:
            log.exception("request %s: answering it again, the long way", request_id)
            return None
