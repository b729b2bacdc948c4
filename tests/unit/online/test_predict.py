"""`/repair/predict`: the model's own score of raw values, an id for every new brand, and a clear word on what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnxruntime
import pyarrow as pa
import pytest
from flask.testing import FlaskClient

from benchmarks.support.away import Away
from data_exchange_center.errors import StoreUnavailable
from data_exchange_center.ready_rows import known_ids, load_vocabularies, ready_rows
from data_exchange_center.release import Release
from data_exchange_center.scored_rows import graph_inputs, row_form
from data_exchange_center.settings import Settings
from data_exchange_center.text_encoder import TEXT, TextEncoder
from data_exchange_center.vocabulary import FIRST, UNKNOWN
from data_exchange_center.workspace import Workspace
from online.api.app import build_app
from online.api.runtime import Runtime
from online.stores import embedded_redis
from online.stores.open import open_stores
from online.stores.ports import Stores
from online.stores.redis_vocabularies import RedisVocabularies
from tests.factories import make_settings
from tests.predict_release import BRANDS, CAPACITY, make_predict_release, publish_predictions

PATIENT_MS = 20_000.0  # so that a slow machine degrades nothing
ROW = {
    "car_brand": "宝马",
    "shop_id": 8,
    "city_id": 1,
    "distance_km": 3.5,
    "price_score": 0.5,
    "rating": 4.5,
    "text_raw": "宝马 brakes squeal",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Stores, Release]]:
    """A release of the scene in real embedded stores."""
    folder = tmp_path_factory.mktemp("predict")
    own = {"data.dataset": "repair_shop", "serve.new_tokens_per_minute": -1, "serve.budget_ms": PATIENT_MS}
    settings = make_settings(folder, **own)
    stores = open_stores(settings)
    try:
        yield settings, stores, publish_predictions(stores, make_predict_release(folder, settings=settings))
    finally:
        stores.close()
        embedded_redis.stop(Workspace(settings).online)


@contextmanager
def worker(settings: Settings, **own: Any) -> Iterator[FlaskClient]:
    """A process's share of a server."""
    runtime = Runtime(settings.with_values(**{f"serve.{name}": value for name, value in own.items()}))
    runtime.open(open_stores)
    try:
        yield build_app(runtime).test_client()
    finally:
        runtime.close()


@pytest.fixture(scope="module")
def client(published: tuple[Settings, Stores, Release]) -> Iterator[FlaskClient]:
    with worker(published[0]) as made:
        yield made


def predicted(client: FlaskClient, **changes: Any) -> dict[str, Any]:
    response = client.post("/repair/predict", json={**ROW, **changes})
    assert response.status_code == 200, response.get_json()
    return dict(response.get_json())


def exact(release: Release, **changes: Any) -> float:
    """What the release's own files answer."""
    spec, form = release.spec(), row_form(release)
    vocabularies = load_vocabularies(spec, release.path / "vocab_map")
    rows = pa.table({name: [value] for name, value in {**ROW, **changes}.items()})
    ready = ready_rows(spec, rows, known_ids(vocabularies), TextEncoder(release.path / TEXT).encode)
    session = onnxruntime.InferenceSession(str(release.file("model/model.onnx")))
    (score,) = session.run(["like"], graph_inputs(spec, form.inputs, ready))[0]
    return float(score)


def test_a_row_gets_the_score_that_the_releases_own_files_give(
    published: tuple[Settings, Stores, Release], client: FlaskClient
) -> None:
    release = published[2]
    for changes in ({}, {"car_brand": "BMW", "text_raw": "a door is broken"}, {"shop_id": 10, "rating": 1}):
        answer = predicted(client, **changes)
        assert answer["score"] == pytest.approx(exact(release, **changes), abs=1e-6)
        assert (answer["release"], answer["degraded"]) == (release.id, [])
    assert predicted(client)["matched_brand_id"] == FIRST + BRANDS.index("宝马")
    assert predicted(client, text_raw="门坏了")["score"] != predicted(client, text_raw="is broken")["score"]


def test_what_is_not_given_counts_as_missing(client: FlaskClient) -> None:
    short = client.post("/repair/predict", json={"car_brand": "BMW", "shop_id": 7})
    assert short.status_code == 200
    full = predicted(
        client, car_brand="BMW", shop_id=7, city_id=-1, distance_km=0, price_score=0, rating=0, text_raw=""
    )
    assert short.get_json()["score"] == pytest.approx(full["score"], abs=1e-6)


def test_a_new_brand_gets_one_id_in_every_worker_and_the_score_of_unk(
    published: tuple[Settings, Stores, Release], client: FlaskClient
) -> None:
    with worker(published[0]) as other:
        first, second = predicted(client, car_brand="蔚来"), predicted(other, car_brand=" 蔚来 ")
    assert first["matched_brand_id"] == second["matched_brand_id"] == FIRST + len(BRANDS)
    assert first["degraded"] == second["degraded"] == []
    assert first["score"] == second["score"] == pytest.approx(exact(published[2], car_brand="蔚来"), abs=1e-6)
    online = published[1].users.vocabularies.export(published[2].scene, "car_brand")
    assert online.ids["蔚来"] == first["matched_brand_id"]


def test_a_brand_scores_by_what_was_learned_once_that_release_is_live(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **{"data.dataset": "repair_shop", "serve.budget_ms": PATIENT_MS})
    stores = open_stores(settings)
    try:
        publish_predictions(stores, make_predict_release(tmp_path, settings=settings))
        runtime = Runtime(settings)
        runtime.open(open_stores)
        try:
            client = build_app(runtime).test_client()
            before = predicted(client, car_brand="Polestar")
            later = publish_predictions(stores, make_predict_release(tmp_path, 1, settings, learned=1))
            runtime.predictions.refresh()
            after = predicted(client, car_brand="Polestar")
            assert len({id(view.vectors) for view in runtime.predictions._loaded.values()}) == 1  # one encoder for both
        finally:
            runtime.close()
    finally:
        stores.close()
        embedded_redis.stop(Workspace(settings).online)
    assert before["matched_brand_id"] == after["matched_brand_id"]
    assert after["release"] == later.id != before["release"]
    assert abs(before["score"] - after["score"]) > 1e-4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("car_brand", ""),
        ("car_brand", 5),
        ("car_brand", "x" * 65),
        ("car_brand", None),
        ("shop_id", "8"),
        ("shop_id", 2**63),
        ("shop_id", True),
        ("city_id", 1.5),
        ("distance_km", -1),
        ("distance_km", "near"),
        ("rating", 1e9),
        ("text_raw", "x" * 4001),
        ("text_raw", 1),
        ("colour", "red"),
    ],
)
def test_a_wrong_field_is_named(client: FlaskClient, field: str, value: Any) -> None:
    response = client.post("/repair/predict", json={**ROW, field: value})
    assert response.status_code == 400
    assert response.get_json()["error"]["field"] == field


def test_missing_fields_and_other_bodies_are_refused(client: FlaskClient) -> None:
    without = {name: value for name, value in ROW.items() if name != "shop_id"}
    assert client.post("/repair/predict", json=without).get_json()["error"]["field"] == "shop_id"
    assert client.post("/repair/predict", data=b"{").status_code == 415
    assert client.post("/repair/predict", data=b"{", content_type="application/json").status_code == 400
    assert client.get("/repair/predict").status_code == 405


def test_what_is_no_name_is_unk_and_said(client: FlaskClient) -> None:
    for brand in ("\x07", "   ", "漢" * 60):
        answer = predicted(client, car_brand=brand)
        assert (answer["matched_brand_id"], answer["degraded"]) == (UNKNOWN, ["new_token"])


def test_a_client_that_may_bring_no_more_tokens_gets_unk(published: tuple[Settings, Stores, Release]) -> None:
    with worker(published[0], new_tokens_per_minute=0) as limited:
        new, known = predicted(limited, car_brand="not allowed"), predicted(limited)
    assert (new["matched_brand_id"], new["degraded"]) == (UNKNOWN, ["new_token"])
    assert (known["matched_brand_id"], known["degraded"]) == (FIRST + BRANDS.index("宝马"), [])


@pytest.mark.parametrize(
    ("proxies", "client"), [(0, "127.0.0.1"), (1, "198.51.100.7"), (2, "203.0.113.9")], ids="{} proxies".format
)
def test_the_limit_of_new_tokens_counts_by_the_address_that_trusted_proxies_saw(
    published: tuple[Settings, Stores, Release], proxies: int, client: str
) -> None:
    forwarded = {"X-Forwarded-For": "192.0.2.1, 203.0.113.9, 198.51.100.7"}
    with (
        worker(published[0], trusted_proxies=proxies) as own,
        patch.object(RedisVocabularies, "assign", autospec=True, side_effect=RedisVocabularies.assign) as assign,
    ):
        assert own.post("/repair/predict", json=ROW, headers=forwarded).status_code == 200
    assert {call.args[5] for call in assign.call_args_list} == {client}  # after self, scene, feature, tokens, timeout


def test_a_full_vocabulary_answers_unk(tmp_path: Path, published: tuple[Settings, Stores, Release]) -> None:
    settings, stores, release = published
    vocabularies = stores.users.vocabularies
    room = CAPACITY - len(vocabularies.export(release.scene, "shop_id").tokens)
    vocabularies.assign(release.scene, "shop_id", list(range(1000, 1000 + room)), 5.0)
    with worker(settings) as own:
        answer = predicted(own, shop_id=99_999)
    assert answer["degraded"] == ["new_token"] and 0 <= answer["score"] <= 1


def test_with_the_vocabulary_away_known_brands_keep_their_id_and_new_ones_are_unk(
    published: tuple[Settings, Stores, Release],
) -> None:
    settings, _, release = published
    gone = StoreUnavailable("the user store is away")
    runtime = Runtime(settings)
    runtime.open(open_stores)
    try:
        client = build_app(runtime).test_client()
        predicted(client)  # which this process remembers from now on
        own = runtime.vocabularies
        own._store = Away(own._store, gone, "assign", "generation")  # type: ignore[assignment]
        for known in own._known.values():
            known._store = own._store
        for _ in range(5):  # more often than it takes until the store is left alone
            new, old = predicted(client, car_brand="岚图"), predicted(client)
            assert (new["matched_brand_id"], new["degraded"]) == (UNKNOWN, ["vocabulary"])
            assert old["matched_brand_id"] == FIRST + BRANDS.index("宝马")
            assert new["score"] == pytest.approx(exact(release, car_brand="岚图"), abs=1e-6)
    finally:
        runtime.close()


def test_a_server_without_a_release_says_what_to_do(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **{"data.dataset": "repair_shop"})
    try:
        with worker(settings) as empty:
            response = empty.post("/repair/predict", json=ROW)
            ready = empty.get("/readyz")
        assert (
            response.status_code == 503 and "make demo DATASET=repair_shop" in response.get_json()["error"]["message"]
        )
        assert ready.status_code == 503 and ready.get_json()["predictions"]["ready"] is False
    finally:
        embedded_redis.stop(Workspace(settings).online)


def test_a_server_of_the_scene_is_ready_without_lists(
    published: tuple[Settings, Stores, Release], client: FlaskClient
) -> None:
    ready = client.get("/readyz").get_json()
    assert ready["release"] == ready["predictions"]["release"] == published[2].id
    assert client.post("/ml/rec", json={"userid": 1}).status_code == 503
    document = client.get("/openapi.json").get_json()
    assert document["paths"]["/repair/predict"]["post"]["operationId"] == "predict"
