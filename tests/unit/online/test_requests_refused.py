"""Every field of every request wrong in type, range or size: a 4xx that names the field, and never a 500."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from tests.unit.online.conftest import Chain

NOT_INT = ["1", 1.5, True, None, [], {}, "NaN"]
NOT_NUMBER = ["0.5", True, [], {}, None]
NOT_BOOL = ["true", 1, 0, None, []]

WRONG_RECOMMEND: list[tuple[str, Any]] = [
    *[("userid", value) for value in ("1", 1.5, True, None, [], {}, 2**63, -(2**63) - 1, 1e300)],
    *[("size", value) for value in (*NOT_INT, 0, -1, 501, 10**30)],
    *[("exclude", value) for value in ("1", 1, {}, None, list(range(1001)))],
    *[("exclude.0", value) for value in (["1"], [1.5], [None], [True], [[1]], [2**70])],
    *[("filters", value) for value in ("x", 1, [])],
    *[("filters.genres", {"genres": value}) for value in ("Comedy", 1, None, ["x"] * 65)],
    *[("filters.genres.0", {"genres": value}) for value in ([1], [None], [""], ["x" * 257])],
    *[("filters.year", {"year": value}) for value in (1990, "1990", [1990, 1999], {"gte": 1999, "lte": 1980})],
    *[("filters.year.gte", {"year": {"gte": value}}) for value in ("1990", 1990.5, True, -1, 10_000)],
    *[("filters.year.lte", {"year": {"lte": value}}) for value in ("1990", [], -1, 10_000)],
    ("filters.year.from", {"year": {"from": 1990}}),
    ("filters.genre", {"genre": ["Comedy"]}),
    *[("channels", value) for value in ("vector", 1, [], ["vector"] * 17)],
    *[("channels.0", value) for value in (["random"], [1], [None])],
    *[("diversity", value) for value in (*NOT_NUMBER, -0.1, 1.1)],
    *[("min_score", value) for value in (*NOT_NUMBER, -0.1, 1.1)],
    *[("now", value) for value in ("1", 1.5, True, -1, 10**15)],
    *[("explain", value) for value in NOT_BOOL],
    ("sizes", 5),
]
BAD_BODIES = {
    "empty": b"",
    "not json": b"size=5",
    "truncated": b'{"userid": 1, "size"',
    "two values": b"{} {}",
    "not utf-8": b'{"userid": "\xff\xfe"}',
    "a list": b"[1, 2]",
    "null": b"null",
    "nan": b'{"userid": 1, "diversity": NaN}',
    "infinity": b'{"userid": 1, "diversity": Infinity}',
    "overflow": b'{"userid": 1, "diversity": 1e999}',
    "deep": b'{"userid": ' + b"[" * 100_000,
    "long number": b'{"userid": ' + b"9" * 10_000 + b"}",
    "lone surrogate": b'{"userid": 1, "filters": {"genres": ["\\ud800"]}}',
}


def refused(response: TestResponse, status: int = 400) -> dict[str, Any]:
    """The error of an answer in the contract's form."""
    assert response.status_code == status, response.get_data(as_text=True)
    error: dict[str, Any] = response.get_json()["error"]
    assert set(error) == {"code", "message", "field"}
    return error


@pytest.mark.parametrize(("field", "value"), WRONG_RECOMMEND, ids=lambda value: str(value)[:40])
def test_recommend_names_the_wrong_field(int_chain: Chain, field: str, value: Any) -> None:
    name = field.partition(".")[0]
    error = refused(int_chain.client.post("/ml/rec", json={"userid": 1} | {name: value}))
    assert error["code"] == "invalid_request"
    assert error["field"] == field


def test_recommend_needs_a_user(int_chain: Chain) -> None:
    assert refused(int_chain.client.post("/ml/rec", json={"size": 5}))["field"] == "userid"


@pytest.mark.parametrize("path", ["/ml/rec", "/ml/score", "/ml/events"])
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_body_that_is_no_json_object_is_refused(int_chain: Chain, path: str, body: bytes) -> None:
    refused(int_chain.client.post(path, data=body, content_type="application/json"))


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_content_type_is_refused(int_chain: Chain, kind: str) -> None:
    refused(int_chain.client.post("/ml/rec", data=b'{"userid": 1}', content_type=kind), 415)


def test_a_charset_is_no_other_content_type(int_chain: Chain) -> None:
    sent = int_chain.client.post("/ml/rec", data=b'{"userid": 1}', content_type="application/json; charset=utf-8")
    assert sent.status_code == 200


def test_a_huge_body_is_refused(int_chain: Chain) -> None:
    body = b'{"userid": 1, "exclude": [' + b"1," * int_chain.settings.serve.max_body_bytes + b"1]}"
    assert (
        refused(int_chain.client.post("/ml/rec", data=body, content_type="application/json"), 413)["code"]
        == "too_large"
    )


def test_a_body_that_ends_early_is_refused(int_chain: Chain) -> None:
    server = make_server("127.0.0.1", 0, int_chain.app)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(
            b'POST /ml/rec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"userid"'
        )
        connection.shutdown(socket.SHUT_WR)
        status = connection.recv(65_536).split(b" ", 2)[1]
    thread.join(10)
    server.server_close()
    assert status == b"400"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "userid"),
        ("userid=", "userid"),
        ("userid=one", "userid"),
        ("userid=1.5", "userid"),
        ("userid=1&userid=2", "userid"),
        ("userid=1&size=ten", "size"),
        ("userid=1&size=501", "size"),
        ("userid=1&size=007", "size"),
        ("userid=1&explain=yes", "explain"),
        ("userid=1&diversity=nan", "diversity"),
        ("userid=1&diversity=1e999", "diversity"),
        ("userid=1&exclude=x", "exclude.0"),
        ("userid=1&channels=best", "channels.0"),
        ("userid=1&year_gte=x", "filters.year.gte"),
        ("userid=1&filters=x", "filters"),
        ("userid=1&sizes=3", "sizes"),
    ],
)
def test_a_query_names_the_wrong_parameter(int_chain: Chain, query: str, field: str) -> None:
    assert refused(int_chain.client.get(f"/ml/rec?{query}"))["field"] == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("userid", {"userid": "1"}),
        ("itemids", {"itemids": []}),
        ("itemids", {"itemids": 1}),
        ("itemids", {"itemids": list(range(2001))}),
        ("itemids.0", {"itemids": ["1"]}),
        ("now", {"now": -1}),
        ("explain", {"explain": "yes"}),
        ("item", {"item": 1}),
    ],
)
def test_score_names_the_wrong_field(int_chain: Chain, field: str, change: dict[str, Any]) -> None:
    assert refused(int_chain.client.post("/ml/score", json={"userid": 1, "itemids": [1]} | change))["field"] == field


EVENT = {"event_id": "e", "userid": 1, "itemid": 1, "event": "click", "timestamp": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_id", 1),
        ("event_id", ""),
        ("event_id", "x" * 257),
        ("userid", "1"),
        ("itemid", 1.5),
        ("event", "buy"),
        ("value", "5"),
        ("timestamp", 1.5),
        ("timestamp", -1),
        ("request_id", 5),
        ("extra", 1),
    ],
)
def test_events_names_the_wrong_field(int_chain: Chain, field: str, value: Any) -> None:
    sent = int_chain.client.post("/ml/events", json={"events": [EVENT, EVENT | {field: value}]})
    assert refused(sent)["field"] == f"events.1.{field}"


@pytest.mark.parametrize("events", [[], {}, None, [EVENT] * 1001], ids=["none", "object", "null", "too many"])
def test_events_are_a_bounded_list(int_chain: Chain, events: Any) -> None:
    assert refused(int_chain.client.post("/ml/events", json={"events": events}))["field"] == "events"


def test_ids_have_the_type_that_the_log_declares(chain: Chain) -> None:
    other: Any = 1 if chain.view.user_type == "string" else "1"
    assert refused(chain.client.post("/ml/rec", json={"userid": other}))["field"] == "userid"
    user = chain.release.table("users")["user_id"][0].as_py()
    assert refused(chain.client.post("/ml/rec", json={"userid": user, "exclude": [other]}))["field"] == "exclude.0"


def test_a_whole_number_may_be_written_with_a_point(int_chain: Chain) -> None:
    for body in (b'{"userid": 1, "size": 5}', b'{"userid": 1.0, "size": 5.0}'):
        answer = int_chain.client.post("/ml/rec", data=body, content_type="application/json")
        assert len(answer.get_json()["item_list"]) == 5


def test_errors_of_routing_have_the_same_form(int_chain: Chain) -> None:
    client: FlaskClient = int_chain.client
    assert refused(client.get("/nothing/here"), 404)["code"] == "not_found"
    wrong = client.delete("/ml/rec")
    assert refused(wrong, 405)["code"] == "method_not_allowed"
    assert "POST" in wrong.headers["Allow"]


def test_an_internal_error_does_not_tell_what_is_inside(int_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("online.api.recommend.recommend", fail)
    answer = int_chain.client.post("/ml/rec", json={"userid": 1})
    assert refused(answer, 500)["code"] == "internal"
    assert "hunter2" not in json.dumps(answer.get_json())
