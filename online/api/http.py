"""What every route shares: the request id, strict reading of bodies and queries, and JSON answers."""

from __future__ import annotations

import json
import os
import re
from typing import Any, TypeVar

from flask import Response, g, request
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import UnsupportedMediaType

from data_exchange_center.errors import InvalidRequest

REQUEST_ID = "X-Request-ID"
_ALLOWED_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,3})?")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

Model = TypeVar("Model", bound=BaseModel)


def request_id() -> str:
    """The caller's `X-Request-ID` when it is 1 to 128 of letters, digits and `._:-`; otherwise one made here."""
    known: str | None = g.get("request_id")
    if known is None:
        known = g.request_id = allowed_request_id(request.headers.get(REQUEST_ID, ""))
    return known


def allowed_request_id(given: str) -> str:
    """What the caller sent, or an id made here where it sent none or one that is not allowed."""
    return given if _ALLOWED_REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def encoded(content: Any) -> bytes:
    """Compact UTF-8 JSON; a NaN or an infinity in it is a bug and raises ValueError."""
    return _encode(content).encode()


def json_response(content: Any, status: int = 200) -> Response:
    """An answer with this content, see `encoded`."""
    return Response(encoded(content), status, content_type="application/json")


def read_body(model: type[Model]) -> Model:
    """The request's JSON body, validated.

    Raises:
        UnsupportedMediaType: the content type is not application/json.
        RequestEntityTooLarge, ClientDisconnected: by werkzeug, for a body that is too large or ends early.
        InvalidRequest: not JSON, or the first field that is wrong, by its dotted name.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send the body as Content-Type: application/json")
    body = request.get_data(cache=False)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from error


def invalid(error: ValidationError) -> InvalidRequest:
    """The first problem that pydantic found, as the error that the contract answers with."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "is not a field of this request"
    return InvalidRequest(f"{place}: {message}" if place else message, field=place or None)


def read_query(model: type[Model], nested: dict[str, tuple[str, ...]]) -> Model:
    """The query string, validated by the same model as the body.

    Args:
        model: top-level fields are parameters of the same name; lists are repeated parameters.
        nested: parameter -> path of the field that it stands for, for fields of inner objects.

    Raises:
        InvalidRequest: an unknown, repeated or malformed parameter; `field` names it.
    """
    properties: dict[str, Any] = query_properties(model, nested)
    tree: dict[str, Any] = {}
    arguments: MultiDict[str, str] = request.args
    for name, values in arguments.lists():
        if name not in properties:
            raise InvalidRequest(f"{name}: is not a parameter of this request", field=name)
        schema = properties[name]
        if schema.get("type") == "array":
            value: Any = [_parsed(text, schema["items"]) for text in values]
        elif len(values) > 1:
            raise InvalidRequest(f"{name}: given {len(values)} times", field=name)
        else:
            value = _parsed(values[0], schema)
        node = tree
        *path, last = nested.get(name, (name,))
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise invalid(error) from error


def query_properties(model: type[BaseModel], nested: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """JSON schema of each query parameter that stands for a field of the model; computed once per model."""
    known = _PROPERTIES.get(model)
    if known is None:
        schema = model.model_json_schema()
        known = {name: _plain(schema, field) for name, field in schema["properties"].items()}
        for name, path in nested.items():
            node: dict[str, Any] = schema
            for part in path:
                node = _plain(schema, node)["properties"][part]
            known[name] = _plain(schema, node)
        known = {name: field for name, field in known.items() if field.get("type") != "object"}
        _PROPERTIES[model] = known
    return known


_PROPERTIES: dict[type[BaseModel], dict[str, Any]] = {}


def _plain(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the null alternative and without references at its top."""
    if "anyOf" in schema:
        outer = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        schema = {**outer, **next(part for part in schema["anyOf"] if part.get("type") != "null")}
    if "$ref" in schema:
        return dict(root["$defs"][schema["$ref"].rpartition("/")[2]])
    return schema


def _parsed(text: str, schema: dict[str, Any]) -> Any:
    """A parameter's text as the JSON value it stands for; what does not parse stays text, which validation then refuses."""
    kind = schema.get("type")
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "number" and _NUMBER.fullmatch(text):
        return float(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text
