"""The short way to a list and the long one give the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from online.api import recommend
from tests.unit.online.conftest import Chain

LONG = "application/json; charset=utf-8"  # the door knows the plain type alone


def asked(chain: Chain, content_type: str, **more: Any) -> Any:
    return chain.client.post("/ml/rec", json={"userid": 1, "size": 5, **more}, content_type=content_type)


@pytest.mark.parametrize("more", [{}, {"explain": True, "now": 900_000_000}, {"diversity": 0.5}, {"userid": 10**9}])
def test_both_ways_answer_the_same(int_chain: Chain, more: dict[str, Any]) -> None:
    short, long = (asked(int_chain, kind, **more) for kind in ("application/json", LONG))
    assert short.status_code == long.status_code == 200
    assert short.content_type == long.content_type
    unlike = ("request_id", "timings_ms")
    first, second = ({k: v for k, v in answer.json.items() if k not in unlike} for answer in (short, long))
    assert first == second and len(first["item_list"]) == 5


def test_the_short_way_does_not_enter_flask(int_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int_chain.app.wsgi_app, "_beyond", None)
    assert asked(int_chain, "application/json").status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b'{"userid": "x"}', b'{"userid": 1, "surprise": 1}'])
def test_a_body_that_is_not_valid_is_refused_as_ever(int_chain: Chain, body: bytes) -> None:
    short, long = (
        int_chain.client.post("/ml/rec", data=body, content_type=kind) for kind in ("application/json", LONG)
    )
    assert short.status_code == long.status_code == 400
    assert short.json == long.json


def test_a_body_that_is_too_large_is_refused_unread(int_chain: Chain) -> None:
    most = int_chain.settings.serve.max_body_bytes
    answer = int_chain.client.post("/ml/rec", data=b" " * (most + 1), content_type="application/json")
    assert answer.status_code == 413


def test_the_callers_request_id_comes_back(int_chain: Chain) -> None:
    answer = int_chain.client.post("/ml/rec", json={"userid": 1}, headers={"X-Request-ID": "mine"})
    assert answer.headers["X-Request-ID"] == answer.json["request_id"] == "mine"


def test_a_bug_is_answered_with_500(int_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(recommend, "recommend", broken)
    answer = asked(int_chain, "application/json")
    assert answer.status_code == 500 and answer.json["error"]["code"] == "internal"
