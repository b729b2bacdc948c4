"""The check of offline against online: silent on a sound chain, and naming what was altered in any store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest

from data_exchange_center.errors import ReleaseError
from data_exchange_center.release import Release, open_release
from data_exchange_center.workspace import read_array, read_table, sha256, write_array, write_table
from offline_to_online.rank import s3_check_offline_and_online
from offline_to_online.rank.comparison import Findings, Score
from offline_to_online.rank.offline_reference import OfflineReference
from offline_to_online.rank.parity_requests import ParityRequest, parity_requests
from offline_to_online.rank.s3_check_offline_and_online import compare, summary
from online.api.runtime import EXTENSION
from tests.unit.online.conftest import Chain, make_chain

REQUESTS = 60


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain of its own, because its stores are altered."""
    yield from make_chain(tmp_path_factory.mktemp("parity"), ids="string", users=25, items=60)


def graph_scores(release: Release) -> Score:
    """The release's own graph as the offline side's model: tiny releases have no torch network."""
    session = onnxruntime.InferenceSession(
        release.file("model/model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run(chain: Chain, requests: int = REQUESTS, ask: Any = None) -> Findings:
    client = chain.client

    def through_http(request: ParityRequest) -> dict[str, Any]:
        answer = client.post(request.path, json=request.body)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        content: dict[str, Any] = answer.get_json()
        return content

    score = graph_scores(open_release(chain.release.path))
    return compare(chain.settings, chain.release, ask or through_http, score, requests)


def altered(release: Release, folder: Path, file: str, change: Callable[[Path], None]) -> Release:
    """The same release with one file changed and a manifest that agrees with it: what a store may hold by mistake."""
    copy = folder / release.id
    shutil.copytree(release.path, copy)
    change(copy / file)
    files = dict(release.manifest["files"])
    files[file] = {"sha256": sha256(copy / file), "bytes": (copy / file).stat().st_size}
    return Release(copy, {**release.manifest, "files": files})


def shifted(column: str, row: int) -> Callable[[Path], None]:
    """Adds one to a value of a table."""

    def change(path: Path) -> None:
        table = read_table(path)
        values = table[column].to_pylist()
        values[row] = values[row] + 1
        at = table.schema.get_field_index(column)
        write_table(path, table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)))

    return change


def scaled(*places: int) -> Callable[[Path], None]:
    """Changes elements of an array."""

    def change(path: Path) -> None:
        array = read_array(path).copy()
        array[places] = array[places] * 1.5 + 0.25
        write_array(path, array)

    return change


def test_a_sound_chain_has_no_difference(own: Chain) -> None:
    findings = run(own)
    assert findings.ok, summary(findings)
    assert findings.requests == REQUESTS
    assert findings.scores > REQUESTS
    assert findings.named() == {"user": findings.worst[0], "item": findings.worst[1], "feature": None}


def test_nothing_compared_is_no_success(own: Chain) -> None:
    def nothing(request: ParityRequest) -> dict[str, Any]:
        empty = {"release": own.release.id, "degraded": [], "item_list": [], "itemids": [], "items": []}
        return {**empty, "score": [], "like": []}

    findings = run(own, ask=nothing)
    assert not findings.ok
    assert findings.requests == REQUESTS


def test_another_release_ends_the_check(own: Chain) -> None:
    with pytest.raises(ReleaseError, match="during the check"):
        run(own, ask=lambda request: {"release": "another", "degraded": []})


def test_a_moment_of_degradation_is_asked_again(own: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_check_offline_and_online, "PAUSE_S", 0.0)
    client, asked = own.client, 0

    def shaky(request: ParityRequest) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        answer: dict[str, Any] = client.post(request.path, json=request.body).get_json()
        return answer | {"degraded": ["user_store"] if asked % 2 else []}

    assert run(own, 10, ask=shaky).ok
    assert asked == 20


def test_a_degraded_answer_is_no_success(own: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_check_offline_and_online, "PAUSE_S", 0.0)
    client = own.client
    findings = run(own, ask=lambda r: client.post(r.path, json=r.body).get_json() | {"degraded": ["item_index"]})
    assert not findings.ok
    assert findings.degraded["item_index"] == REQUESTS


@pytest.mark.parametrize("part", ["vector", "history", "term_weights"])
def test_an_altered_profile_is_caught(own: Chain, part: str) -> None:
    users = own.release.table("user_profiles")["user_id"].to_pylist()
    profile = own.view.tables.profile(users[3])
    assert profile is not None
    values = getattr(profile, part).copy()
    values[0] = (values[0] + 1) % own.view.item_count if part == "history" else values[0] + 0.5
    own.stores.users.write(own.settings.scene, own.release.id, [replace(profile, **{part: values})])
    try:
        findings = run(own)
    finally:
        own.stores.users.write(own.settings.scene, own.release.id, [profile])
    assert not findings.ok
    assert findings.named()["user"] == users[3]
    recall = {"vector": "recall_vector", "history": "recall_item", "term_weights": "recall_term"}[part]
    assert recall in findings.differences
    assert {example.user for example in findings.examples.values()} == {users[3]}


@pytest.mark.parametrize(
    ("file", "place", "named"),
    [("recall/item_vectors.npy", (7, 0), "index:vector"), ("recall/term_values.npy", (5,), "index:term")],
)
def test_an_altered_index_is_caught(
    own: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, place: tuple[int, ...], named: str
) -> None:
    server = own.client.application.extensions[EXTENSION]
    monkeypatch.setattr(server, "policy", replace(server.policy, terms_from_index=True))
    own.stores.items.drop(own.release.id)
    own.stores.items.load(altered(own.release, tmp_path, file, scaled(*place)))
    try:
        findings = run(own)
    finally:
        own.stores.items.drop(own.release.id)
        own.stores.items.load(own.release)
    assert not findings.ok
    assert set(findings.differences) == {named}
    if named == "index:vector":
        assert findings.named()["item"] == own.view.item_ids.tolist()[7]


def test_an_item_that_the_index_lost_is_caught(own: Chain, tmp_path: Path) -> None:
    def lose(path: Path) -> None:
        vectors = read_array(path).copy()
        vectors[7] = -1e3 * np.sign(own.view.recall.vectors.user_vectors.mean(axis=0))
        write_array(path, vectors)

    settings = own.settings
    own.stores.items.drop(own.release.id)
    own.stores.items.load(altered(own.release, tmp_path, "recall/item_vectors.npy", lose))
    few = replace(own.policy, per_channel=20)
    runtime = own.app.extensions["marquee"]
    runtime.policy, usual = few, runtime.policy
    own.settings = settings.with_values(**{"recall.candidates": 20})
    try:
        findings = run(own, 200)
    finally:
        own.settings, runtime.policy = settings, usual
        own.stores.items.drop(own.release.id)
        own.stores.items.load(own.release)
    assert not findings.ok
    assert findings.named()["item"] == own.view.item_ids.tolist()[7]
    assert findings.named()["feature"] == "index:vector"


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("tables/user_features.parquet", "age"),
        ("tables/user_features.parquet", "user_last_timestamp"),
        ("tables/item_features.parquet", "year"),
        ("tables/item_features.parquet", "item_events"),
    ],
)
def test_an_altered_feature_is_caught(own: Chain, tmp_path: Path, file: str, column: str) -> None:
    own.stores.features.load(altered(own.release, tmp_path, file, shifted(column, 4)))
    try:
        findings = run(own)
    finally:
        own.stores.features.load(own.release)
    assert not findings.ok
    assert set(findings.differences) == {column}
    named = findings.named()
    assert named["feature"] == column
    if file == "tables/user_features.parquet":
        assert named["user"] == own.release.table("user_features")["user_id"][4].as_py()
    else:
        assert named["item"] == own.release.table("item_features")["item_id"][4].as_py()


def test_an_altered_weight_is_caught(own: Chain, tmp_path: Path) -> None:
    def nudge(path: Path) -> None:
        model = onnx.load(path)
        constant = next(entry for entry in model.graph.initializer if entry.name == "recall_item_c")
        constant.CopyFrom(
            onnx.numpy_helper.from_array(
                np.asarray(onnx.numpy_helper.to_array(constant) + 0.01, np.float32), constant.name
            )
        )
        onnx.save(model, path)

    own.stores.scorer.load(altered(own.release, tmp_path, "model/model.onnx", nudge))
    try:
        findings = run(own)
    finally:
        own.stores.scorer.load(own.release)
    assert not findings.ok
    assert findings.max_abs_delta > 1e-5
    assert findings.named()["feature"] == "(model)"
    assert not findings.differences


def test_the_requests_are_of_every_kind_and_reach_every_user_and_item(own: Chain) -> None:
    users = own.release.table("users")["user_id"].to_pylist()
    items = own.release.table("items")
    sent = list(parity_requests(users, items, dict.fromkeys(users, 10), 200, seed=1))
    bodies = [request.body for request in sent]
    assert {request.user for request in sent} == set(users)
    assert {item for body in bodies for item in body.get("itemids", ())} == set(items["item_id"].to_pylist())
    assert len({body["size"] for body in bodies if "size" in body}) > 4
    for name in ("now", "filters", "exclude", "channels"):
        assert any(name in body for body in bodies), name
    assert sent == list(parity_requests(users, items, dict.fromkeys(users, 10), 200, seed=1))


def test_a_user_without_features_is_read_as_the_declared_defaults(own: Chain) -> None:
    reference = OfflineReference(own.release)
    made = reference.inputs("nobody", reference.item_ids[:2], 900_000_000)
    of_users = [feature for feature in reference.spec.inputs if feature.entity == "user" and not feature.key]
    assert of_users and all(len(made[feature.name]) == 1 for feature in of_users)
