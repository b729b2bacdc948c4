"""`/upload`: scores of a file's rows, by the live release of the scene that `serve.upload_scene` names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import UnsupportedMediaType

from data_exchange_center.errors import DataError, InvalidRequest
from online.api import metrics
from online.api.http import read_query, request_id
from online.api.runtime import Runtime, runtime
from online.api.schemas import UploadQuery
from online.api.upload_answer import csv_pieces, json_pieces
from online.pipeline.row_files import batches_of
from online.pipeline.row_scoring import ScoredRows, auc_of, score_rows
from online.pipeline.row_view import RowView

blueprint = Blueprint("upload", __name__)

PART = "file"
SHOWN = 100  # characters of a file's name in messages


@blueprint.post("/upload")
def upload() -> Response:
    """Reads and scores the file in pieces, and answers when its last row is scored."""
    own = runtime()
    query = read_query(UploadQuery, {})
    view = own.row_view()
    with own.upload_turn():
        started = time.perf_counter()
        file = uploaded_file(own.settings.serve.upload_max_bytes)
        received = time.perf_counter()
        scored = scored_file(own, view, file)
        ended = time.perf_counter()
    metrics.UPLOADED_ROWS.inc(len(scored.scores))
    metrics.UPLOAD_SECONDS.observe(ended - started)
    more: dict[str, Any] = {"rows": len(scored.scores), "release": view.release.id, "request_id": request_id()}
    if query.full:
        more["auc"] = auc_of(scored.labels, scored.scores) if scored.labels is not None else None
    if query.debug:
        spent = {"receive": received - started, "score": scored.score_s, "total": ended - started}
        more["timings_ms"] = {stage: round(seconds * 1000.0, 3) for stage, seconds in spent.items()}
    if query.save:
        more["saved"] = own.results.keep(written(query, more, scored), f".{query.re_model}")
    content_type = "application/json" if query.re_model == "json" else "text/csv; charset=utf-8"
    response = Response(written(query, more, scored), content_type=content_type)
    if query.re_model == "csv":
        told = {"user_id": query.user_id, **{name: more.get(name) for name in ("release", "auc", "saved")}}
        for name, value in told.items():
            if value is not None:
                response.headers[f"X-{name.replace('_', '-').title()}"] = quote(str(value))
    return response


def uploaded_file(most_bytes: int) -> FileStorage:
    """The request's one part, `file`; it lies on disk when it is large.

    Raises:
        UnsupportedMediaType, RequestEntityTooLarge, ClientDisconnected: by werkzeug's rules, before or while it is read.
        InvalidRequest: another part, or none.
    """
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("send the file as multipart/form-data, in a part named file")
    request.max_content_length = most_bytes
    files = request.files.getlist(PART)
    for name in (*request.files, *request.form):
        if name != PART:
            raise InvalidRequest(f"{name}: is not a part of this request", field=name)
    if PART in request.form:
        raise InvalidRequest("file: send it as a file, with a file name", field=PART)
    if len(files) != 1:
        raise InvalidRequest(f"file: one is needed, {len(files)} were sent", field=PART)
    return files[0]


def scored_file(own: Runtime, view: RowView, file: FileStorage) -> ScoredRows:
    """The file's rows with their scores.

    Raises:
        InvalidRequest: a malformed row (the message has its line), another format, or no row at all.
    """
    name = (file.filename or PART)[:SHOWN]
    serve = own.settings.serve
    try:
        batches = batches_of(cast(BinaryIO, file.stream), view.schema, name, serve.upload_seconds)
        scored = score_rows(view, own.stores.scorer, batches, own.row_threads, serve.upload_max_rows)
    except DataError as error:
        raise InvalidRequest(error.message, field=PART) from error
    if not len(scored.scores):
        raise InvalidRequest(f"{name}: holds no row", field=PART)
    return scored


def written(query: UploadQuery, more: dict[str, Any], scored: ScoredRows) -> Iterator[bytes]:
    """The answer's bytes."""
    labels = scored.labels if query.full else None
    if query.re_model == "csv":
        return csv_pieces(scored.scores, labels)
    head = {"code": 200, "dtype": "float32", "user_id": query.user_id, **more}
    return json_pieces(head, scored.scores, labels)
