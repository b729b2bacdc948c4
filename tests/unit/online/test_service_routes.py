"""Health, metrics, the OpenAPI document and the admin routes."""

from __future__ import annotations

import hmac
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_exchange_center.errors import StoreUnavailable
from data_exchange_center.programs import ProgramFailed
from online.api import admin
from online.api.app import build_app
from online.api.runtime import Runtime
from online.api.schemas import Readiness
from online.stores.ports import Stores
from tests.factories import make_settings
from tests.unit.online.conftest import Chain

BEARER = {"Authorization": "Bearer secret"}


class Unpublished:
    """A user store in which nothing was ever published."""

    def live(self, scene: str, timeout: float) -> None:
        return None

    def blocked_copy(self, scene: str) -> frozenset[int]:
        return frozenset()

    def ping(self, timeout: float) -> None:
        raise StoreUnavailable("nobody there")

    def close(self) -> None:
        """Nothing to close."""


def test_alive(int_chain: Chain) -> None:
    assert int_chain.client.get("/healthz").get_json() == {"status": "alive"}


def test_ready_names_the_release_and_every_dependency(int_chain: Chain) -> None:
    answer = int_chain.client.get("/readyz")
    state = Readiness.model_validate(answer.get_json())
    assert answer.status_code == 200
    assert state.ready
    assert state.release == int_chain.release.id
    assert set(state.dependencies) == {"user_store", "item_index", "feature_store", "scorer"}


def test_without_a_release_the_server_lives_but_is_not_ready(tmp_path: Path) -> None:
    nobody: Any = Unpublished()
    runtime = Runtime(make_settings(tmp_path, **{"serve.log_answers": False}))
    runtime.open(lambda _: Stores(nobody, nobody, nobody, nobody))
    try:
        client = build_app(runtime).test_client()
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        state = Readiness.model_validate(answer.get_json())
        assert not state.ready
        assert "make publish" in state.reason
        assert state.dependencies["user_store"].detail == "nobody there"
        refused = client.post("/ml/rec", json={"userid": 1})
        assert refused.status_code == 503
        assert refused.get_json()["error"]["code"] == "not_ready"
        assert client.get("/openapi.json").status_code == 200
        assert client.get("/").get_json()["release"] is None
    finally:
        runtime.close()


def test_metrics_count_requests_and_stages(int_chain: Chain) -> None:
    int_chain.client.post("/ml/rec", json={"userid": 1})
    text = int_chain.client.get("/metrics").get_data(as_text=True)
    assert 'marquee_requests_total{route="/ml/rec",status="200"}' in text
    assert 'marquee_stage_seconds_count{stage="score"}' in text
    assert "marquee_release_live{release=" in text


def test_the_document_declares_ids_as_the_log_does(chain: Chain) -> None:
    document = chain.client.get("/openapi.json").get_json()
    declared = document["components"]["schemas"]["RecommendBody"]["properties"]["userid"]["type"]
    assert declared == {"int64": "integer", "string": "string"}[chain.view.user_type]
    assert document["openapi"] == "3.1.0"


def test_every_reference_in_the_document_leads_somewhere(int_chain: Chain) -> None:
    document = int_chain.client.get("/openapi.json").get_json()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    text = json.dumps(document)
    used = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert used <= known
    assert "Annotated" not in text


def test_every_route_is_in_the_document(int_chain: Chain) -> None:
    document = int_chain.client.get("/openapi.json").get_json()
    routes = {rule.rule for rule in int_chain.app.url_map.iter_rules()}
    assert routes == set(document["paths"])


def test_the_token_is_compared_in_constant_time(int_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare_digest(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return hmac.compare_digest(given, token)

    monkeypatch.setattr(admin, "hmac", SimpleNamespace(compare_digest=compare_digest))
    for given, status in (("wrong", 401), ("secret", 200)):
        header = {"Authorization": f"Bearer {given}"}
        assert int_chain.client.post("/admin/reload", json={}, headers=header).status_code == status
    assert compared == [(b"wrong", b"secret"), (b"secret", b"secret")]


@pytest.mark.parametrize("route", ["publish", "rollback", "reload", "items/block", "items/unblock"])
@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret2", "bearer:secret", "Bearer sécret"]
)
def test_admin_refuses_without_the_token(int_chain: Chain, route: str, header: str) -> None:
    answer = int_chain.client.post(f"/admin/{route}", json={}, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("route", ["publish", "rollback", "reload", "items/block", "items/unblock"])
def test_admin_is_off_without_a_token_in_the_settings(tmp_path: Path, route: str) -> None:
    client = build_app(Runtime(make_settings(tmp_path))).test_client()
    assert client.post(f"/admin/{route}", json={}, headers=BEARER).status_code == 404


def test_reload_answers_with_the_release_in_use(int_chain: Chain) -> None:
    answer = int_chain.client.post("/admin/reload", json={}, headers=BEARER)
    assert answer.status_code == 200
    assert answer.get_json()["release"] == int_chain.release.id


@pytest.mark.parametrize(
    ("route", "body", "arguments"),
    [
        ("publish", {}, []),
        ("publish", {"release": "r1"}, ["--release=r1"]),
        ("rollback", {}, ["--rollback"]),
        ("rollback", {"release": "r1"}, ["--rollback", "--release=r1"]),
    ],
)
def test_publishing_runs_the_publisher_as_a_process(
    int_chain: Chain, monkeypatch: pytest.MonkeyPatch, route: str, body: dict[str, str], arguments: list[str]
) -> None:
    ran: list[Any] = []

    def run(script: str, given: list[str], settings: Any) -> dict[str, Any]:
        ran.append((script, given))
        return {"release": int_chain.release.id, "previous": "r0", "seconds": 1.5, "stores": {"users": 40}}

    monkeypatch.setattr(admin, "run_program", run)
    answer = int_chain.client.post(f"/admin/{route}", json=body, headers=BEARER)
    assert answer.get_json() == {
        "release": int_chain.release.id,
        "previous": "r0",
        "seconds": 1.5,
        "stores": {"users": 40},
    }
    assert ran == [("offline_to_online/publish.py", arguments)]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("locked", 409),
        ("invalid_release", 400),
        ("store_unavailable", 503),
        ("invalid_settings", 503),
        ("internal", 500),
    ],
)
def test_a_failed_publish_says_why(int_chain: Chain, monkeypatch: pytest.MonkeyPatch, code: str, status: int) -> None:
    def run(*_: Any) -> dict[str, Any]:
        failed = ProgramFailed("publish.py: the reason")
        failed.code = code
        raise failed

    monkeypatch.setattr(admin, "run_program", run)
    answer = int_chain.client.post("/admin/publish", json={"release": "r1"}, headers=BEARER)
    assert answer.status_code == status
    assert "the reason" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize("body", [{"release": 1}, {"release": ""}, {"other": "x"}, []])
def test_admin_bodies_are_checked(int_chain: Chain, body: Any) -> None:
    assert int_chain.client.post("/admin/publish", json=body, headers=BEARER).status_code == 400


def test_the_age_of_the_features_is_told(int_chain: Chain) -> None:
    int_chain.client.post("/admin/reload", json={}, headers=BEARER)
    text = int_chain.client.get("/metrics").get_data(as_text=True)
    age = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("marquee_feature_age_seconds "))
    assert age == pytest.approx(time.time() - int_chain.view.snapshot, abs=60)
    assert "marquee_features_stale 0.0" in text
