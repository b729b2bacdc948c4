"""New brands on a real server of two workers and the embedded Redis: one id each, and a learned score after a publish."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.programs import run_program
from data_exchange_center.vocabulary import FIRST
from data_exchange_center.workspace import Workspace
from online.stores import embedded_redis
from tests.e2e.test_serving import PUBLISH, Running, free_port, running
from tests.factories import make_settings
from tests.predict_release import BRANDS, make_predict_release

pytestmark = pytest.mark.e2e

NEW = tuple(f"新品牌 {number}" for number in range(8))


def test_new_brands_from_their_first_request_to_a_learned_score(tmp_path: Path) -> None:
    own = {"data.dataset": "repair_shop", "serve.port": free_port(), "serve.workers": 2, "serve.budget_ms": 20_000.0}
    settings = make_settings(tmp_path, **own)
    releases = [make_predict_release(tmp_path, seed, settings, learned=seed * len(NEW)) for seed in (0, 1)]
    try:
        with running(settings) as server:
            first = run_program(PUBLISH, ["--release", releases[0].id], settings, timeout=120)
            assert first["stores"]["vocabularies"]["features"] == 2
            server.wait_for(releases[0].id)
            with ThreadPoolExecutor(6) as clients:
                before = list(clients.map(lambda number: asked(server, NEW[number % len(NEW)]), range(8 * len(NEW))))
            ids = {
                brand: {answer["matched_brand_id"] for answer in before[place :: len(NEW)]}
                for place, brand in enumerate(NEW)
            }
            assert all(len(found) == 1 for found in ids.values()), ids
            given = sorted(number for found in ids.values() for number in found)
            assert given == list(range(FIRST + len(BRANDS), FIRST + len(BRANDS) + len(NEW)))
            assert len({answer["score"] for answer in before}) == 1  # all of them score as UNK does
            with ThreadPoolExecutor(2) as background:
                publishing = background.submit(run_program, PUBLISH, ["--release", releases[1].id], settings, 120)
                while not publishing.done():
                    asked(server, NEW[0])
            assert publishing.result()["flipped"]
            server.wait_for(releases[1].id)
            after = [asked(server, brand) for brand in NEW]
    finally:
        embedded_redis.stop(Workspace(settings).online)
    assert [{answer["matched_brand_id"]} for answer in after] == [ids[brand] for brand in NEW]
    assert len({answer["score"] for answer in after}) == len(NEW)  # each by what was learned of it


def asked(server: Running, brand: str) -> dict[str, Any]:
    """One request; an answer that does not do without anything."""
    body = {"car_brand": brand, "shop_id": 8, "city_id": 1, "distance_km": 2.5, "text_raw": "brakes squeal"}
    status, answer = server.ask("POST", "/repair/predict", body)
    assert status == 200 and answer["degraded"] == [], answer
    return dict(answer)
