"""`/openapi.json`, made from the same models that validate: OpenAPI 3.1, for the id types of the release in use."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from online.api import schemas as s
from online.api.http import query_properties

CONTRACT_VERSION = "1.0.0"
_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    400: "the body or a parameter is wrong; `field` names it",
    401: "the bearer token is missing or wrong",
    404: "no such thing",
    409: "somebody else does the same work right now",
    413: "the body is too large",
    415: "the body is not declared as what the route takes",
    429: "enough of these are being answered; try again in a moment",
    500: "a bug",
    503: "not ready, or a store that this cannot do without is away",
}


@cache
def document(user_type: s.IdType, item_type: s.IdType, admin: bool) -> dict[str, Any]:
    """The whole document.

    Args:
        user_type, item_type: as the log declares its ids.
        admin: whether the admin routes are on.
    """
    m = s.models(user_type, item_type)
    responses: list[type[BaseModel]] = [
        m.recommend_answer,
        m.score_answer,
        s.EventsAnswer,
        s.ErrorAnswer,
        s.Alive,
        s.Readiness,
        s.AdminAnswer,
        s.Pointer,
        s.UploadAnswer,
        s.PredictAnswer,
    ]
    requests: list[type[BaseModel]] = [m.recommend, m.score, m.events, s.UploadForm, s.PredictBody]
    if admin:
        requests += [s.AdminPublishBody, s.AdminRollbackBody, s.AdminReloadBody, m.items]
        responses += [m.items_answer, m.blocked_answer]
    made, definitions = models_json_schema(
        [(model, "validation") for model in requests] + [(model, "serialization") for model in responses],
        ref_template=_REFERENCE,
    )
    names = {model: made[(model, "validation")]["$ref"] for model in requests}
    names |= {model: made[(model, "serialization")]["$ref"] for model in responses}

    def body(model: type[BaseModel]) -> dict[str, Any]:
        return {"required": True, "content": {"application/json": {"schema": {"$ref": names[model]}}}}

    def answer(model: type[BaseModel], description: str) -> dict[str, Any]:
        return {
            "description": description,
            "headers": {"X-Request-ID": {"description": "taken over or made", "schema": {"type": "string"}}},
            "content": {"application/json": {"schema": {"$ref": names[model]}}},
        }

    def operation(
        name: str, summary: str, success: dict[str, Any], errors: tuple[int, ...], **more: Any
    ) -> dict[str, Any]:
        return {
            "operationId": name,
            "summary": summary,
            **more,
            "responses": {**success, **{str(code): _error(code, names[s.ErrorAnswer]) for code in errors}},
        }

    writing = (400, 413, 415, 500, 503)
    scored_file = answer(s.UploadAnswer, "the last row is scored; with re_model=csv a line for each, `p` or `p,label`")
    scored_file["content"]["text/csv"] = {"schema": {"type": "string"}}
    paths: dict[str, Any] = {
        "/ml/rec": {
            "post": operation(
                "recommend",
                "A ranked list for a user",
                {"200": answer(m.recommend_answer, "the list, best first")},
                writing,
                requestBody=body(m.recommend),
            ),
            "get": operation(
                "recommendByQuery",
                "The same for a browser or a plain curl",
                {"200": answer(m.recommend_answer, "the list, best first")},
                (400, 500, 503),
                parameters=_parameters(m.recommend, s.RECOMMEND_QUERY),
            ),
        },
        "/ml/score": {
            "post": operation(
                "score",
                "Scores of given items for a user",
                {"200": answer(m.score_answer, "scores in the order asked")},
                writing,
                requestBody=body(m.score),
            )
        },
        "/ml/events": {
            "post": operation(
                "events",
                "What users did; durable before the answer",
                {"202": answer(s.EventsAnswer, "stored")},
                writing,
                requestBody=body(m.events),
            )
        },
        "/upload": {
            "post": operation(
                "upload",
                "Scores of a file's rows",
                {"200": scored_file},
                (400, 413, 415, 429, 500, 503),
                parameters=_parameters(s.UploadQuery, {}),
                requestBody={
                    "required": True,
                    "content": {"multipart/form-data": {"schema": {"$ref": names[s.UploadForm]}}},
                },
            )
        },
        "/repair/predict": {
            "post": operation(
                "predict",
                "How likely a shop is taken for a repair",
                {"200": answer(s.PredictAnswer, "the score, and the id of the brand")},
                writing,
                requestBody=body(s.PredictBody),
            )
        },
        "/healthz": {"get": operation("alive", "The process lives", {"200": answer(s.Alive, "alive")}, ())},
        "/readyz": {
            "get": operation(
                "ready",
                "Able to answer, with each dependency's state",
                {"200": answer(s.Readiness, "ready"), "503": answer(s.Readiness, "not ready, and why")},
                (),
            )
        },
        "/metrics": {
            "get": operation(
                "metrics",
                "Prometheus metrics",
                {"200": {"description": "text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
                (),
            )
        },
        "/openapi.json": {
            "get": operation(
                "document",
                "This document",
                {"200": {"description": "OpenAPI", "content": {"application/json": {"schema": {"type": "object"}}}}},
                (),
            )
        },
        "/": {"get": operation("root", "Where to go from here", {"200": answer(s.Pointer, "pointers")}, ())},
    }
    if admin:
        guarded = (400, 401, 404, 409, 413, 415, 500, 503)
        for name, model, told, summary in (
            ("publish", s.AdminPublishBody, s.AdminAnswer, "Publish a release into every store and make it live"),
            ("rollback", s.AdminRollbackBody, s.AdminAnswer, "Make the release before, or a named one, live again"),
            ("reload", s.AdminReloadBody, s.AdminAnswer, "Look at the release pointer now"),
            ("items/block", m.items, m.items_answer, "Take items out of every list, whatever release is live"),
            ("items/unblock", m.items, m.items_answer, "Let items into lists again"),
        ):
            paths[f"/admin/{name}"] = {
                "post": operation(
                    _operation_id(name),
                    summary,
                    {"200": answer(told, "done")},
                    guarded,
                    requestBody=body(model),
                    security=[{"token": []}],
                )
            }
        paths["/admin/items/blocked"] = {
            "get": operation(
                _operation_id("items/blocked"),
                "The items that are in no list",
                {"200": answer(m.blocked_answer, "the items")},
                (401, 404, 500, 503),
                security=[{"token": []}],
            )
        }
    components: dict[str, Any] = {"schemas": definitions["$defs"]}
    if admin:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "Marquee",
            "version": CONTRACT_VERSION,
            "description": "Recall, filter, rank: recommendations from the live release.",
        },
        "paths": paths,
        "components": components,
    }
    return _short_names(whole)


def _operation_id(route: str) -> str:
    return "admin" + "".join(part.capitalize() for part in route.split("/"))


def _error(code: int, reference: str) -> dict[str, Any]:
    return {"description": _ERRORS[code], "content": {"application/json": {"schema": {"$ref": reference}}}}


def _parameters(model: type[BaseModel], nested: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    made = []
    for name, schema in query_properties(model, nested).items():
        shown = copy.deepcopy(schema)
        shown.pop("default", None)
        entry: dict[str, Any] = {"name": name, "in": "query", "required": name in required, "schema": shown}
        if shown.get("type") == "array":
            entry |= {"style": "form", "explode": True}
        made.append(entry)
    return made


def _short_names(whole: dict[str, Any]) -> dict[str, Any]:
    """Gives generic models their plain names; pydantic appends the parameters' representation."""
    long = [name for name in whole["components"]["schemas"] if "_Annotated_" in name]
    short = {name: re.sub(r"_Annotated_.*", "", name) for name in long}

    def renamed(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                short.get(key, key): (
                    _REFERENCE.format(model=short.get(value.rpartition("/")[2], value.rpartition("/")[2]))
                    if key == "$ref"
                    else renamed(value)
                )
                for key, value in node.items()
            }
        return [renamed(entry) for entry in node] if isinstance(node, list) else node

    return dict(renamed(whole))
