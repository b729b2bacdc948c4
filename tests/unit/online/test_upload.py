"""`/upload`: every format gives the model's own scores in the file's order, and what is wrong with a file is said, never a 500."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from werkzeug.test import TestResponse

from data_exchange_center.release import Release
from data_exchange_center.scored_rows import graph_inputs, row_form
from data_exchange_center.workspace import Workspace
from online.api.app import build_app
from online.api.runtime import Runtime
from online.api.upload_answer import csv_pieces, json_pieces
from online.pipeline.row_scoring import auc_of
from online.pipeline.saved_results import SavedResults
from online.stores import embedded_redis
from online.stores.open import open_stores
from tests.factories import ROW_IDS, ROW_NUMBERS, make_rows, make_scorer_release, make_settings
from tests.unit.online.conftest import Chain, publish_rows


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return make_rows(5000, seed=7)


def tsv(rows: pa.Table, *, label: bool = True) -> bytes:
    """Criteo's text: integers in decimal, ids in hexadecimal, nothing for a missing value."""
    lines = []
    for row in rows.to_pylist():
        numbers = ["" if row[name] is None else f"{row[name]:.0f}" for name in ROW_NUMBERS]
        ids = ["" if row[name] is None else f"{row[name]:08x}" for name in ROW_IDS]
        lines.append("\t".join([*([f"{row['label']:.0f}"] if label else []), *numbers, *ids]))
    return ("\n".join(lines) + "\n").encode()


def slots(rows: pa.Table) -> bytes:
    """Slot text of rows without missing numbers."""
    lines = []
    for row in rows.to_pylist():
        numbers = [f"dense_feature:{row[name]}" for name in ROW_NUMBERS]
        ids = [f"{slot}:{row[name]}" for slot, name in enumerate(ROW_IDS, start=1) if row[name] is not None]
        lines.append("\t".join([f"click:{row['label']:.0f}", *numbers, *ids]))
    return "\n".join(lines).encode()


def parquet(rows: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(rows, target)
    return target.getvalue()


def exact(release: Release, rows: pa.Table) -> np.ndarray:
    """What the release's own file answers."""
    session = onnxruntime.InferenceSession(str(release.file("model/model.onnx")))
    (scores,) = session.run(["like"], graph_inputs(release.spec(), row_form(release).inputs, rows))
    return np.asarray(scores)


def send(client: FlaskClient, content: bytes, query: str = "", name: str = "rows.tsv") -> TestResponse:
    return client.post(f"/upload{query}", data={"file": (io.BytesIO(content), name)})


def answered(client: FlaskClient, content: bytes, query: str = "") -> dict[str, Any]:
    response = send(client, content, query)
    assert response.status_code == 200, response.text
    return dict(json.loads(response.data))


def refused(response: TestResponse, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return dict(response.get_json()["error"])


def present(rows: pa.Table) -> pa.Table:
    """Rows without missing numbers, which slot text cannot hold one by one."""
    return rows.filter(pa.array(np.all([np.asarray(rows[name].is_valid()) for name in ROW_NUMBERS], axis=0)))


@pytest.mark.parametrize("form", ["tsv", "unlabelled", "tsv.gz", "slots", "parquet", "windows"])
def test_every_format_gives_the_models_own_scores_in_order(int_chain: Chain, rows: pa.Table, form: str) -> None:
    sent = present(rows) if form == "slots" else rows
    content = {
        "tsv": lambda: tsv(sent),
        "unlabelled": lambda: tsv(sent, label=False),
        "tsv.gz": lambda: gzip.compress(tsv(sent)),
        "slots": lambda: slots(sent),
        "parquet": lambda: parquet(sent),
        "windows": lambda: b"\xef\xbb\xbf" + tsv(sent).replace(b"\n", b"\r\n"),
    }[form]()
    answer = answered(int_chain.client, content, "?user_id=42")
    assert (answer["code"], answer["dtype"], answer["user_id"]) == (200, "float32", "42")
    assert (answer["rows"], answer["release"]) == (sent.num_rows, int_chain.rows.id)
    found = np.array(answer["data"], np.float32)
    assert found.shape == (sent.num_rows, 1)
    np.testing.assert_allclose(found[:, 0], exact(int_chain.rows, sent), rtol=0, atol=1e-6)


def test_full_adds_labels_and_their_auc_and_debug_timings(int_chain: Chain, rows: pa.Table) -> None:
    answer = answered(int_chain.client, tsv(rows), "?full=true&debug=true")
    labels = rows["label"].to_numpy()
    assert answer["labels"] == labels.astype(int).tolist()
    assert answer["auc"] == pytest.approx(roc_auc_score(labels, exact(int_chain.rows, rows)), abs=1e-6)
    assert answer["timings_ms"]["total"] > 0
    plain = answered(int_chain.client, tsv(rows))
    assert not {"labels", "auc", "timings_ms", "saved"} & set(plain)


def test_full_without_labels_has_no_auc(int_chain: Chain, rows: pa.Table) -> None:
    answer = answered(int_chain.client, tsv(rows[:20], label=False), "?full=true")
    assert answer["auc"] is None
    assert "labels" not in answer


def test_csv_has_a_line_for_each_row_and_the_rest_in_headers(int_chain: Chain, rows: pa.Table) -> None:
    response = send(int_chain.client, tsv(rows), "?re_model=csv&full=true&user_id=r%C3%A9%0A1")
    assert response.mimetype == "text/csv"
    assert response.headers["X-User-Id"] == "r%C3%A9%0A1"
    lines = list(csv.DictReader(io.StringIO(response.text)))
    assert [int(line["label"]) for line in lines] == rows["label"].to_pylist()
    np.testing.assert_allclose([float(line["p"]) for line in lines], exact(int_chain.rows, rows), atol=1e-6)
    assert send(int_chain.client, tsv(rows[:2]), "?re_model=csv").text.splitlines()[0] == "p"


@pytest.mark.parametrize("form", ["json", "csv"])
def test_save_keeps_the_answer_on_the_server(int_chain: Chain, rows: pa.Table, form: str) -> None:
    response = send(int_chain.client, tsv(rows[:9]), f"?save=true&re_model={form}")
    name = response.headers["X-Saved"] if form == "csv" else response.get_json()["saved"]
    kept = (Workspace(int_chain.settings).online / "uploads" / name).read_bytes()
    assert kept.startswith(b"p\n") if form == "csv" else json.loads(kept)["data"] == response.get_json()["data"]


def test_a_malformed_row_is_refused_with_its_line(int_chain: Chain, rows: pa.Table) -> None:
    lines = tsv(rows).split(b"\n")
    for line, wrong in ((1, b"x\t" * 39), (4711, b"1\t2\t3"), (5000, lines[7].replace(b"\t", b"\tfar", 1))):
        content = b"\n".join([*lines[: line - 1], wrong, *lines[line:]])
        error = refused(send(int_chain.client, content), 400)
        assert f"rows.tsv: line {line}: " in error["message"]
        assert (error["code"], error["field"]) == ("invalid_request", "file")


def test_a_malformed_row_of_a_parquet_file_is_refused_with_its_row(int_chain: Chain, rows: pa.Table) -> None:
    labels = rows["label"].to_numpy().copy()
    labels[4000] = 7
    broken = rows.set_column(0, "label", pa.array(labels))
    assert "row 4000: 'label'" in refused(send(int_chain.client, parquet(broken)), 400)["message"]
    assert "'c3' is missing" in refused(send(int_chain.client, parquet(rows.drop_columns(["c3"]))), 400)["message"]


def test_numbers_that_are_none_score_as_missing_or_are_refused(int_chain: Chain, rows: pa.Table) -> None:
    numbers = np.full(rows.num_rows, np.nan, np.float32)
    with_nan = rows.set_column(1, "i1", pa.array(numbers, from_pandas=False))
    without = rows.set_column(1, "i1", pa.nulls(rows.num_rows, pa.float32()))
    found = answered(int_chain.client, parquet(with_nan))["data"]
    np.testing.assert_allclose(np.array(found)[:, 0], exact(int_chain.rows, without), atol=1e-6)
    line = tsv(rows[:1]).split(b"\t")
    error = refused(send(int_chain.client, b"\t".join([line[0], b"nan", *line[2:]])), 400)
    assert "line 1: 'i1' is 'nan', not a finite number" in error["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\x00" * 50,
        b"PAR1",
        b"PAR1" + b"x" * 500 + b"PAR1",
        b"\x1f\x8b",
        b"\x1f\x8bnonsense",
        b"ORC" + b"x" * 99,
    ],
)
def test_what_is_no_file_of_rows_is_refused(int_chain: Chain, content: bytes) -> None:
    assert refused(send(int_chain.client, content), 400)["field"] == "file"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 3000),
    junk=st.one_of(
        st.binary(max_size=300), st.text(alphabet="\t\n\r:0123456789abcdefi.-", max_size=300).map(str.encode)
    ),
    form=st.sampled_from(["tsv", "slots", "parquet", "gzip"]),
)
def test_a_damaged_file_is_scored_or_refused_and_never_an_error_of_the_server(
    int_chain: Chain, rows: pa.Table, cut: int, junk: bytes, form: str
) -> None:
    whole = {"tsv": tsv, "slots": slots, "parquet": parquet, "gzip": lambda sent: gzip.compress(tsv(sent))}
    content = whole[form](present(rows)[:12])
    response = send(int_chain.client, content[:cut] + junk + content[cut + len(junk) :])
    assert response.status_code in (200, 400), response.text


@pytest.mark.parametrize(
    ("query", "field"),
    [("?userid=1", "userid"), ("?full=yes", "full"), ("?re_model=xml", "re_model"), ("?save=true&save=true", "save")],
)
def test_a_wrong_parameter_is_named(int_chain: Chain, rows: pa.Table, query: str, field: str) -> None:
    assert refused(send(int_chain.client, tsv(rows[:2]), query), 400)["field"] == field


def test_the_body_must_be_one_file(int_chain: Chain) -> None:
    client = int_chain.client
    assert refused(client.post("/upload", json={"file": "x"}), 415)["code"] == "unsupported_media_type"
    assert refused(client.post("/upload", data=b"1\t2"), 415)
    multipart = "multipart/form-data"
    assert refused(client.post("/upload", content_type=multipart), 400)["field"] == "file"
    assert refused(client.post("/upload", data={"other": (io.BytesIO(b"x"), "a")}), 400)["field"] == "other"
    assert "file name" in refused(client.post("/upload", data={"file": "x"}, content_type=multipart), 400)["message"]
    two = {"file": [(io.BytesIO(b"x"), "a"), (io.BytesIO(b"y"), "b")]}
    assert "2 were sent" in refused(client.post("/upload", data=two), 400)["message"]


class Server:
    """An application of its own settings on the stores of another."""

    def __init__(self, chain: Chain, **values: object) -> None:
        self.runtime = Runtime(chain.settings.with_values(**values))
        self.runtime.open(lambda _: replace(chain.stores))
        self.client = build_app(self.runtime).test_client()


def test_limits_of_size_rows_and_time(int_chain: Chain, rows: pa.Table) -> None:
    content = tsv(rows[:3000])
    for name, value in (("upload_max_bytes", 100_000), ("upload_max_rows", 2999), ("upload_seconds", 1e-9)):
        server = Server(int_chain, **{f"serve.{name}": value})
        assert refused(send(server.client, content), 413)["code"] == "too_large"
    assert refused(send(server.client, gzip.compress(b"\n" * 50_000_000)), 413)["message"].startswith(
        "the file takes too long"
    )


def test_while_all_places_are_taken_one_is_told_to_wait(int_chain: Chain, rows: pa.Table) -> None:
    server = Server(int_chain, **{"serve.uploads_at_once": 1})
    with server.runtime.upload_turn():
        assert refused(send(server.client, tsv(rows[:2])), 429)["code"] == "too_many_requests"
    assert send(server.client, b"").status_code == 400
    assert send(server.client, tsv(rows[:2])).status_code == 200, "a refused upload gives its place back"


def test_uploads_at_once_get_each_their_own_scores(int_chain: Chain, rows: pa.Table) -> None:
    server = Server(int_chain, **{"serve.uploads_at_once": 4})
    found: dict[int, dict[str, Any]] = {}

    def one(number: int) -> None:
        found[number] = answered(server.client, tsv(rows[number * 900 : number * 900 + 900]))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scores = exact(int_chain.rows, rows)
    for number, answer in found.items():
        np.testing.assert_allclose(np.array(answer["data"])[:, 0], scores[number * 900 :][:900], atol=1e-6)
    assert len(found) == 4


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.9])), min_size=2, max_size=60))
def test_auc_is_scikit_learns(rows: list[tuple[int, float]]) -> None:
    labels, scores = np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows], np.float32)
    if labels.min() == labels.max():
        assert auc_of(labels, scores) is None
    else:
        assert auc_of(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


@given(st.lists(st.floats(0, 1, width=32), max_size=50), st.integers(1, 9))
def test_answers_hold_every_score_to_the_last_bit(values: list[float], piece: int) -> None:
    scores = np.array(values, np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("online.api.upload_answer.ROWS", piece)
        answer = json.loads(b"".join(json_pieces({"code": 200}, scores, np.zeros(len(scores), np.float32))))
        lines = b"".join(csv_pieces(scores, None)).decode().splitlines()
    assert np.array_equal(np.array([row[0] for row in answer["data"]], np.float32), scores)
    assert answer["labels"] == [0] * len(scores)
    assert np.array_equal(np.array(lines[1:], np.float32), scores)


def test_results_that_are_kept_are_bounded_in_number_and_size(tmp_path: Path) -> None:
    results = SavedResults(tmp_path, most=3, most_bytes=100)
    names = [results.keep([b"x" * 10], ".csv") for _ in range(5)]
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])
    large = results.keep([b"x" * 50, b"y" * 45], ".csv")
    assert [path.name for path in tmp_path.iterdir()] == [large]
    with pytest.raises(Exception, match="upload_keep_mib"):
        results.keep([b"x" * 60, b"y" * 60], ".csv")
    assert [path.name for path in tmp_path.iterdir()] == [large]


def test_a_server_without_a_release_for_rows_says_what_to_publish(tmp_path: Path) -> None:
    made = make_settings(tmp_path, **{"data.dataset": "criteo"})
    runtime = Runtime(made)
    try:
        runtime.open(open_stores)
        client = build_app(runtime).test_client()
        error = refused(send(client, b"1"), 503)
        assert "make demo DATASET=criteo" in error["message"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/openapi.json").status_code == 200
        refused(client.post("/ml/rec", json={"userid": 1}), 503)

        release = publish_rows(runtime.stores, make_scorer_release(tmp_path, settings=made))
        sent = make_rows(30)
        answer = answered(client, tsv(sent))
        np.testing.assert_allclose(np.array(answer["data"])[:, 0], exact(release, sent), atol=1e-6)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.get_json()["release"]) == (200, release.id)
        assert set(ready.get_json()["dependencies"]) == {"user_store", "scorer"}
        assert "no lists" in refused(client.post("/ml/rec", json={"userid": 1}), 503)["message"]
    finally:
        runtime.close()
        embedded_redis.stop(Workspace(made).online)


def test_lists_do_not_depend_on_rows(int_chain: Chain) -> None:
    server = Server(int_chain, **{"serve.upload_scene": "elsewhere"})
    assert server.client.get("/readyz").status_code == 200
    assert server.client.get("/readyz").get_json()["uploads"]["ready"] is False
    user = int_chain.release.table("users")["user_id"][0].as_py()
    assert server.client.post("/ml/rec", json={"userid": user}).status_code == 200
    refused(send(server.client, b"1"), 503)
