"""Blocking items on two worker processes: at once, across releases, while Redis is away and after a restart meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.programs import run_program
from data_exchange_center.settings import Settings
from tests.e2e.test_serving import PUBLISH, Running, free_port, running
from tests.factories import make_release, make_settings
from tests.servers import RedisServer

pytestmark = pytest.mark.e2e

TOKEN = {"Authorization": "Bearer secret"}
ITEMS = 40


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def settings(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    own = {"stores.user_store": redis.url, "serve.port": free_port(), "serve.admin_token": "secret"}
    return make_settings(tmp_path_factory.mktemp("blocking"), **{**own, "serve.workers": 2, "serve.budget_ms": 5000.0})


def lists(server: Running, user: Any, requests: int = 24) -> list[dict[str, Any]]:
    """Answers to requests made at once, each on a connection of its own, so that both workers give some."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: server.recommend(user, 500), range(requests)))


def whole_lists(server: Running, user: Any) -> list[dict[str, Any]]:
    """The first answers that lack nothing: a worker asks a store that was away again after a moment, each by its own breaker."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if whole := [answer for answer in lists(server, user) if not answer["degraded"]]:
            return whole
        time.sleep(0.05)
    return []


def change(server: Running, verb: str, items: list[int]) -> tuple[int, Any]:
    return server.ask("POST", f"/admin/items/{verb}", {"itemids": items}, TOKEN)


def items_of(answer: dict[str, Any]) -> set[int]:
    return {item["itemid"] for item in answer["item_list"]}


def test_a_blocked_item_stays_out_whatever_happens(settings: Settings, redis: RedisServer, tmp_path: Path) -> None:
    store = Path(settings.data.store).parent
    first, second = (make_release(store, users=20, items=ITEMS, seed=seed, settings=settings) for seed in (1, 2))
    user = 10**9  # knows nothing, so that every item may be answered
    both = set(first.table("items")["item_id"].to_pylist()) & set(second.table("items")["item_id"].to_pylist())
    out = sorted(both)[:2]
    run_program(PUBLISH, ["--release", first.id], settings)
    with running(settings) as server:
        server.wait_for(first.id)
        assert len(server.ask("GET", "/readyz")[1]["workers"]) == 2
        for item in out:  # one after the other: the very next requests know, on both workers
            status, answer = change(server, "block", [item])
            assert (status, answer.get("changed")) == (200, 1), answer
            assert not any(item in items_of(answer) for answer in lists(server, user))

        run_program(PUBLISH, ["--release", second.id], settings)
        server.wait_for(second.id)
        answers = lists(server, user)
        assert all(len(items_of(answer)) == ITEMS - len(out) for answer in answers)

        redis.kill()
        answers = lists(server, user)
        assert all(answer["degraded"] == ["user_store"] and not items_of(answer) & set(out) for answer in answers)
        status, refused = change(server, "unblock", out)
        assert (status, refused["error"]["code"]) == (503, "store_unavailable")

    with running(settings) as server:  # started while Redis is away: from the copies on disk
        server.wait_for(second.id)
        assert not any(items_of(answer) & set(out) for answer in lists(server, user))
        redis.start()
        server.wait("/readyz", lambda status, answer: answer["dependencies"]["user_store"]["ok"])
        assert change(server, "unblock", out)[0] == 200
        answers = whole_lists(server, user)
        assert answers
        assert all(items_of(answer) >= set(out) for answer in answers)
