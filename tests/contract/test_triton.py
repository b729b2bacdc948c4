"""What the Triton adapter promises beyond the port: versions side by side, publishing under load, deadlines, faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from data_exchange_center.errors import SettingsError, StoreError, StoreUnavailable
from data_exchange_center.release import Release
from online.stores.model_inputs import OUTPUTS, declared_input
from online.stores.triton_scorer import TritonScorer
from tests.contract.backends import Backend
from tests.factories import TERMS, make_release
from tests.servers import TritonServer

CANDIDATES = 20
BACKEND = ("scorer", "triton")


@pytest.fixture
def server(backend: Backend) -> TritonServer:
    assert isinstance(backend.server, TritonServer)
    return backend.server


@pytest.fixture
def scorer(server: TritonServer) -> Iterator[TritonScorer]:
    made = TritonScorer(server.url, server.repository)
    yield made
    for release in made.releases():
        made.drop(release)
    made.close()


def exact(release: Release) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random inputs of a release's graph, and the scores that onnxruntime gives them in this process."""
    session = onnxruntime.InferenceSession(str(release.file("model/model.onnx")))
    generator, words = np.random.default_rng(0), np.array([*TERMS, "", "é"], object)
    inputs = {}
    for given in session.get_inputs():
        example = declared_input(given.name, given.type, given.shape).example(CANDIDATES)
        values = words if example.dtype == object else np.arange(1, 90)
        inputs[given.name] = generator.choice(values, example.shape).astype(example.dtype)
    return inputs, session.run(["score"], inputs)[0]


def test_releases_score_side_by_side_each_with_its_own_model(scorer: TritonScorer, tmp_path: Path) -> None:
    releases = [make_release(tmp_path), make_release(tmp_path, seed=1), make_release(tmp_path, ids="string", seed=2)]
    for release in releases:
        scorer.load(release)
    for release in releases:
        inputs, scores = exact(release)
        np.testing.assert_allclose(scorer.score(release.id, inputs, 5.0)["score"], scores, atol=1e-6)
        assert scorer.fingerprint(release.id, 5.0) == {
            "model_sha256": release.manifest["files"]["model/model.onnx"]["sha256"],
            "feature_spec_sha256": release.manifest["feature_spec_sha256"],
        }


def test_no_request_fails_while_versions_come_and_go(scorer: TritonScorer, tmp_path: Path) -> None:
    live, *others = (make_release(tmp_path, seed=seed) for seed in range(3))
    scorer.load(live)
    inputs, scores = exact(live)
    done, failures, answered = threading.Event(), [], 0

    def ask() -> None:
        nonlocal answered
        while not done.is_set():
            try:
                np.testing.assert_allclose(scorer.score(live.id, inputs, 10.0)["score"], scores, atol=1e-6)
                answered += 1
            except (StoreError, AssertionError) as error:
                failures.append(error)

    client = threading.Thread(target=ask)
    client.start()
    for other in others:
        scorer.load(other)
    for other in others:
        scorer.drop(other.id)
    done.set()
    client.join()
    assert not failures
    assert answered > 10


def test_a_version_that_does_not_load_leaves_the_others_alone(
    scorer: TritonScorer, server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, broken = (make_release(tmp_path, seed=seed) for seed in range(2))
    scorer.load(live)
    inputs, _ = exact(live)
    with monkeypatch.context() as context:  # as if the disk of the server's machine had lost it
        context.setattr("shutil.copyfile", lambda source, target: Path(target).write_bytes(b"lost"))
        with pytest.raises(StoreError, match="load"):
            scorer.load(broken)
    assert scorer.ready(live.id, 5.0)
    assert not scorer.ready(broken.id, 5.0)
    assert set(scorer.score(live.id, inputs, 5.0)) == set(OUTPUTS)
    scorer.load(broken)
    assert scorer.ready(broken.id, 5.0)


def test_a_paused_server_costs_no_more_than_the_deadline(
    scorer: TritonScorer, server: TritonServer, tmp_path: Path
) -> None:
    release = make_release(tmp_path)
    scorer.load(release)
    inputs, scores = exact(release)
    scorer.score(release.id, inputs, 5.0)
    with server.paused():
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            scorer.score(release.id, inputs, 0.1)
        assert time.perf_counter() - started < 0.5
    np.testing.assert_allclose(scorer.score(release.id, inputs, 5.0)["score"], scores, atol=1e-6)


def test_a_killed_server_comes_back_with_its_models(scorer: TritonScorer, server: TritonServer, tmp_path: Path) -> None:
    release = make_release(tmp_path)
    scorer.load(release)
    inputs, scores = exact(release)
    server.kill()
    with pytest.raises(StoreUnavailable):
        scorer.score(release.id, inputs, 0.5)
    server.start()
    deadline = time.monotonic() + 5.0
    while not scorer.ready(release.id, 1.0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    np.testing.assert_allclose(scorer.score(release.id, inputs, 5.0)["score"], scores, atol=1e-6)


def test_publishing_without_the_repository_says_which_setting_is_missing(server: TritonServer, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="triton_repository"):
        TritonScorer(server.url).load(make_release(tmp_path))
