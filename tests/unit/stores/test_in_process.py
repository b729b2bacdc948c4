"""The adapters that keep files of their own: what is altered is refused, what is loaded again is repaired."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.release import Release
from online.stores.embedded_items import EmbeddedItems, best
from online.stores.lru import OpenReleases
from online.stores.onnx_scorer import OnnxScorer
from online.stores.ports import Filters, TermQuery, VectorQuery
from tests.factories import make_release

ANY, NOBODY = Filters(), np.empty(0, np.int32)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("release"))


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 1.0])),
    st.integers(0, 70),
)
def test_best_is_a_stable_sort_cut_at_k(scores: np.ndarray, k: int) -> None:
    slow = sorted((row for row, score in enumerate(scores) if score > -np.inf), key=lambda row: (-scores[row], row))
    assert best(scores, k).tolist() == slow[:k]


def test_an_altered_index_is_built_anew_by_the_next_load(release: Release, tmp_path: Path) -> None:
    query = VectorQuery(np.ones(10, np.float32), 5)
    index = EmbeddedItems(tmp_path)
    index.load(release)
    (right,) = index.search(release.id, [query], NOBODY, ANY, 1)
    path = tmp_path / release.id / "vectors.npy"
    content = bytearray(path.read_bytes())
    content[-40:] = bytes(40)
    path.write_bytes(content)
    EmbeddedItems(tmp_path).load(release)
    (repaired,) = EmbeddedItems(tmp_path).search(release.id, [query], NOBODY, ANY, 1)
    assert repaired.rows.tolist() == right.rows.tolist()
    np.testing.assert_array_equal(repaired.scores, right.scores)


def test_a_half_copied_index_is_unavailable(release: Release, tmp_path: Path) -> None:
    EmbeddedItems(tmp_path).load(release)
    (tmp_path / release.id / "years.npy").unlink()
    with pytest.raises(StoreUnavailable, match=r"years\.npy.*publish the release again"):
        EmbeddedItems(tmp_path).search(release.id, [VectorQuery(np.ones(10, np.float32), 5)], NOBODY, ANY, 1)


@pytest.mark.parametrize(
    ("vector", "exclude", "field"),
    [
        (np.ones(9, np.float32), NOBODY, "vector"),
        (np.full(10, np.nan, np.float32), NOBODY, "vector"),
        (np.ones(10, np.float32), np.array([90], np.int32), "exclude"),
        (np.ones(10, np.float32), np.array([-1], np.int32), "exclude"),
    ],
)
def test_a_query_outside_of_the_contract_is_named(
    release: Release, tmp_path: Path, vector: np.ndarray, exclude: np.ndarray, field: str
) -> None:
    index = EmbeddedItems(tmp_path)
    index.load(release)
    with pytest.raises(StoreError) as caught:
        index.search(release.id, [VectorQuery(vector, 5)], exclude, ANY, 1)
    assert caught.value.field == field


def test_a_release_dropped_elsewhere_goes_on_for_those_who_have_it_open(release: Release, tmp_path: Path) -> None:
    query = TermQuery(("Drama",), np.ones(1, np.float32), 5)
    server, publisher = EmbeddedItems(tmp_path), EmbeddedItems(tmp_path)
    publisher.load(release)
    (before,) = server.search(release.id, [query], NOBODY, ANY, 1)
    publisher.drop(release.id)
    (after,) = server.search(release.id, [query], NOBODY, ANY, 1)
    assert after.rows.tolist() == before.rows.tolist()


def test_an_altered_model_is_not_opened_and_the_next_load_repairs_it(release: Release, tmp_path: Path) -> None:
    OnnxScorer(tmp_path).load(release)
    path = tmp_path / release.id / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    scorer = OnnxScorer(tmp_path)
    assert not scorer.ready(release.id, 1)
    with pytest.raises(StoreError, match="checksum"):
        scorer.fingerprint(release.id, 1)
    scorer.load(release)
    assert scorer.ready(release.id, 1)


def test_a_model_that_is_no_onnx_file_is_refused(release: Release, tmp_path: Path) -> None:
    broken = Release(tmp_path / "broken", {**release.manifest, "files": dict(release.manifest["files"])})
    (broken.path / "model").mkdir(parents=True)
    (broken.path / "model/model.onnx").write_bytes(b"no model")
    broken.manifest["files"]["model/model.onnx"] = {"sha256": hashlib.sha256(b"no model").hexdigest(), "bytes": 8}
    with pytest.raises(StoreError, match="not a usable ONNX file"):
        OnnxScorer(tmp_path / "models").load(broken)


def test_a_release_is_opened_once_however_many_ask_at_once() -> None:
    opened: list[str] = []

    def slow(release: str) -> str:
        time.sleep(0.05)
        opened.append(release)
        return release.upper()

    releases = OpenReleases(slow, limit=2)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(releases.get("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (opened, found) == (["a"], ["A"] * 8)


def test_the_least_recently_used_release_is_let_go() -> None:
    opened: list[str] = []

    def opener(release: str) -> str:
        opened.append(release)
        return release

    releases = OpenReleases(opener, limit=2)
    for release in ("a", "b", "a", "c", "a", "b"):
        releases.get(release)
    assert opened == ["a", "b", "c", "b"]


def test_an_opener_that_failed_is_tried_again() -> None:
    attempts: list[int] = []

    def fails_once(release: str) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise StoreUnavailable("not yet")
        return release

    releases = OpenReleases(fails_once)
    with pytest.raises(StoreUnavailable):
        releases.get("a")
    assert releases.get("a") == "a"
