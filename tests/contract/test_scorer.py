"""What every scorer promises (online/stores/ports.py), against onnxruntime on the release's own file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.release import Release
from data_exchange_center.scored_rows import sample_inputs
from online.stores.model_inputs import OUTPUTS
from online.stores.ports import Scorer
from tests.factories import HISTORY, ITEM_TERMS, SNAPSHOT, TERMS, make_scorer_release

T = 10.0  # seconds
Inputs = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def loaded(scorer: Scorer, releases: list[Release]) -> list[Release]:
    for release in releases:
        scorer.load(release)
    return releases


def inputs_of(release: Release, candidates: int, seed: int = 0) -> Inputs:
    """Plausible raw inputs of one request."""
    generator = np.random.default_rng(seed)
    users, items = (release.table(name)[f"{name[:-1]}_id"].to_pylist() for name in ("users", "items"))
    ids = object if isinstance(users[0], str) else np.int64
    words = np.array([*TERMS, "", "é"], object)
    return {
        "user_id": np.array([users[seed % len(users)]], ids),
        "item_id": np.array(generator.choice(np.array(items, ids), candidates), ids),
        "gender": np.array(["F"], object),
        "age": np.array([31.0], np.float32),
        "user_last_timestamp": np.array([SNAPSHOT - 500]),
        "history_items": generator.choice(np.array(items, ids), (1, HISTORY)),
        "genre_rates": generator.random((1, len(TERMS)), np.float32),
        "genres": generator.choice(words, (candidates, ITEM_TERMS)),
        "year": generator.integers(0, 2000, candidates),
        "item_events": generator.integers(0, 50, candidates).astype(np.float32),
        "now": np.array([SNAPSHOT]),
        **{
            f"recall_{name}": generator.normal(size=candidates).astype(np.float32)
            for name in ("vector", "item", "term")
        },
        "recall_popularity": generator.random(candidates, np.float32),
    }


def exact(release: Release, inputs: Inputs) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(release.file("model/model.onnx")))
    return dict(zip(OUTPUTS, session.run(OUTPUTS, inputs), strict=True))


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("candidates", [1, 2, 300])
def test_outputs_are_those_of_the_releases_own_graph(
    scorer: Scorer, loaded: list[Release], which: int, candidates: int
) -> None:
    inputs = inputs_of(loaded[which], candidates)
    found = scorer.score(loaded[which].id, inputs, T)
    assert sorted(found) == sorted(OUTPUTS)
    for name, values in exact(loaded[which], inputs).items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6)


def test_a_candidates_score_does_not_depend_on_the_others(scorer: Scorer, loaded: list[Release]) -> None:
    inputs = inputs_of(loaded[0], 50)
    alone = {
        name: value[7:8] if len(value) == 50 else value  # user and context inputs have one row
        for name, value in inputs.items()
    }
    together = scorer.score(loaded[0].id, inputs, T)
    np.testing.assert_allclose(
        scorer.score(loaded[0].id, alone, T)["score_logit"], together["score_logit"][7:8], atol=1e-6
    )


def test_no_candidates_is_no_error(scorer: Scorer, loaded: list[Release]) -> None:
    found = scorer.score(loaded[0].id, inputs_of(loaded[0], 0), T)
    assert {name: (len(values), values.dtype) for name, values in found.items()} == dict.fromkeys(
        OUTPUTS, (0, np.float32)
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("age", None),
        ("age", np.array([31])),
        ("age", np.array([31.0, 31.0], np.float32)),
        ("age", np.array([[31.0]], np.float32)),
        ("gender", np.array([1.0], np.float32)),
        ("year", np.arange(4)),
        ("year", np.arange(5, dtype=np.float32)),
        ("genres", np.full((5, ITEM_TERMS + 1), "", object)),
        ("genre_rates", np.zeros((1, 2), np.float32)),
    ],
)
def test_a_wrong_input_is_named(scorer: Scorer, loaded: list[Release], name: str, wrong: np.ndarray | None) -> None:
    inputs = inputs_of(loaded[0], 5)
    if wrong is None:
        del inputs[name]
    else:
        inputs[name] = wrong
    with pytest.raises(StoreError, match=name) as caught:
        scorer.score(loaded[0].id, inputs, T)
    assert caught.value.field == name
    assert not isinstance(caught.value, StoreUnavailable)


def test_an_input_that_the_graph_does_not_have_is_named(scorer: Scorer, loaded: list[Release]) -> None:
    inputs = inputs_of(loaded[0], 5) | {"shoe_size": np.array([44])}
    with pytest.raises(StoreError, match="shoe_size"):
        scorer.score(loaded[0].id, inputs, T)


def test_releases_answer_each_for_itself_from_many_threads(scorer: Scorer, loaded: list[Release]) -> None:
    wanted = [exact(release, inputs_of(release, 20))["score"] for release in loaded]

    def right(number: int) -> bool:
        which = number % len(loaded)
        found = scorer.score(loaded[which].id, inputs_of(loaded[which], 20), T)
        return bool(np.allclose(found["score"], wanted[which], rtol=0, atol=1e-6))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(right, range(60)))


def test_fingerprints_are_those_of_the_manifest(scorer: Scorer, loaded: list[Release]) -> None:
    for release in loaded:
        assert scorer.fingerprint(release.id, T) == {
            "model_sha256": release.manifest["files"]["model/model.onnx"]["sha256"],
            "feature_spec_sha256": release.manifest["feature_spec_sha256"],
        }


def test_loading_again_changes_nothing(scorer: Scorer, loaded: list[Release]) -> None:
    scorer.load(loaded[0])
    assert scorer.releases() == sorted(release.id for release in loaded)


def test_a_dropped_release_is_gone_and_the_others_are_not(scorer: Scorer, loaded: list[Release]) -> None:
    gone, stays = loaded[1], loaded[0]
    scorer.drop(gone.id)
    scorer.drop("never-there")
    assert not scorer.ready(gone.id, T)
    with pytest.raises(StoreUnavailable):
        scorer.score(gone.id, inputs_of(gone, 3), T)
    assert scorer.ready(stays.id, T)
    scorer.load(gone)
    assert len(scorer.score(gone.id, inputs_of(gone, 3), T)["score"]) == 3


def test_a_scorer_release_answers_whole_rows_beside_the_chains(
    scorer: Scorer, loaded: list[Release], tmp_path: Path
) -> None:
    release = make_scorer_release(tmp_path)
    scorer.load(release)
    inputs = sample_inputs(release)
    found = scorer.score(release.id, inputs, T)
    for name, values in exact(release, inputs).items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6)
    scorer.drop(release.id)
    assert scorer.ready(loaded[0].id, T)


def test_a_model_without_the_output_that_its_release_promises_is_not_loaded(scorer: Scorer, tmp_path: Path) -> None:
    release = make_scorer_release(tmp_path)
    manifest = {**release.manifest, "scorer": {**release.manifest["scorer"], "output": "ctr"}}
    with pytest.raises(StoreError, match="ctr") as caught:
        scorer.load(replace(release, manifest=manifest))
    assert caught.value.field == "ctr"
    scorer.drop(release.id)


def test_a_release_that_was_never_loaded_is_not_ready(scorer: Scorer, loaded: list[Release]) -> None:
    assert not scorer.ready("never-there", T)
    with pytest.raises(StoreUnavailable):
        scorer.score("never-there", inputs_of(loaded[0], 3), T)


def test_no_time_left_is_unavailable(scorer: Scorer, loaded: list[Release]) -> None:
    with pytest.raises(StoreUnavailable):
        scorer.score(loaded[0].id, inputs_of(loaded[0], 3), 0.0)
    scorer.ping(T)
