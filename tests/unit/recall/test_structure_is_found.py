"""In a world whose preferences are known, every personal channel beats popularity, and the merged list beats each."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from data_exchange_center.list_metrics import list_metrics
from data_exchange_center.recall_scores import RecallArrays, UserTaste
from data_exchange_center.settings import RecallSettings
from offline.recall.evaluation import evaluate
from offline.recall.held_out import HeldOut
from offline.recall.known_rows import KnownRows
from offline.recall.lists import Finder
from offline.recall.merge_learning import learn_weights
from offline.recall.popularity import fit_popularity
from offline.recall.similarity import fit_similarity
from offline.recall.terms import fit_terms, preferred
from offline.recall.vector_training import Trained, fit_vectors
from tests.unit.recall.world import make_events, make_world


@pytest.fixture(scope="module")
def finder(world: KnownRows, trained: Trained, recall_settings: RecallSettings) -> Finder:
    events = world.events
    terms = fit_terms(world.items, events, world.weights)
    popular = fit_popularity(world.users, events)
    arrays = RecallArrays(
        trained.arrays,
        fit_similarity(events, world.weights, recall_settings),
        terms.strength,
        popular.scores,
        terms.terms,
        popular.segments,
        world.weights,
    )
    names, weights = preferred(terms)
    users = [
        UserTaste(
            vector=trained.arrays.user_vectors[user],
            terms=tuple(names[user]),
            term_weights=weights[user],
            history=events.items[events.starts[user] : events.starts[user + 1]].astype(np.int32),
            history_labels=events.labels[events.starts[user] : events.starts[user + 1]],
            history_values=events.values[events.starts[user] : events.starts[user + 1]],
            segment=popular.of_user[user],
        )
        for user in range(events.user_count)
    ]
    return Finder(arrays, users, events, size=60)


@pytest.fixture(scope="module")
def held_out(world: KnownRows) -> HeldOut:
    return HeldOut.of(world.later, world.events)


@pytest.fixture(scope="module")
def evaluation(finder: Finder, held_out: HeldOut, world: KnownRows) -> dict[str, Any]:
    return evaluate(finder, held_out, np.bincount(world.events.positives.items, minlength=world.events.item_count))


@pytest.mark.parametrize("channel", ["vector", "item", "term"])
def test_a_personal_channel_beats_popularity(evaluation: dict[str, Any], channel: str) -> None:
    assert evaluation["recall"][channel]["ndcg50"] > 1.3 * evaluation["popularity"]["ndcg50"]


def test_the_merged_list_keeps_what_its_channels_found(evaluation: dict[str, Any]) -> None:
    best = max(channel["r50"] for channel in evaluation["recall"].values())
    assert evaluation["union"]["r50"] > 0.95 * best
    assert evaluation["union"]["ndcg50"] > 2 * evaluation["popularity"]["ndcg50"]


def test_every_channel_says_what_only_it_found(evaluation: dict[str, Any]) -> None:
    assert all(channel["only_here"] > 0 for channel in evaluation["recall"].values())
    assert all(0 <= channel["gain"] <= channel["r200"] for channel in evaluation["recall"].values())
    assert evaluation["union"]["found"] >= max(channel["r200"] for channel in evaluation["recall"].values())


def test_no_channel_finds_what_the_user_met_before(finder: Finder) -> None:
    for user in range(0, 240, 20):
        met = set(finder.users[user].history.tolist())
        found = finder.find(user)
        assert all(not met & set(rows.tolist()) for rows in found.lists.values())
        assert not met & set(found.merged(finder.arrays, 60).tolist())


def test_the_cold_item_is_found_through_its_attributes(finder: Finder, world: KnownRows) -> None:
    cold = world.events.item_count - 1
    places = [
        int(np.flatnonzero(np.argsort(-finder.find(user).scores["recall_vector"]) == cold)[0]) for user in range(240)
    ]
    fans = np.arange(240) % 4 == cold % 4
    assert np.mean(np.array(places)[fans]) < np.mean(np.array(places)[~fans]) - 20


def test_weights_are_learned_from_what_is_held_out(finder: Finder, held_out: HeldOut) -> None:
    weights, reached = learn_weights(finder, held_out)
    assert weights["vector"] > 0
    assert 0 < reached <= 1


def test_with_nothing_held_out_there_is_a_note_and_default_weights(finder: Finder, world: KnownRows) -> None:
    nothing = HeldOut.of(world.events.take(np.zeros(len(world.events), bool)), world.events)
    assert set(evaluate(finder, nothing, np.zeros(160))) == {"users", "note"}
    assert learn_weights(finder, nothing)[1] == 0.0


def test_positives_met_before_are_not_held_out() -> None:
    known = make_events([(0, 1, 1), (1, 2, 0)], users=2, items=4)
    later = make_events([(0, 1, 1), (0, 3, 1), (0, 3, 1), (1, 2, 1), (1, 0, 0)], users=2, items=4)
    found = HeldOut.of(later, known)
    assert (found.users.tolist(), [rows.tolist() for rows in found.positives]) == ([0], [[3]])


def test_a_sample_keeps_users_and_positives_together() -> None:
    whole = HeldOut(np.arange(10), [np.array([user]) for user in range(10)])
    part = whole.sample(4)
    assert len(part.users) <= 4
    assert [rows.tolist() for rows in part.positives] == [[user] for user in part.users.tolist()]


def test_ndcg_is_the_one_of_scikit_learn(world: KnownRows) -> None:
    random = np.random.default_rng(0)
    scores, relevant = random.random((5, 80)), random.random((5, 80)) < 0.1
    lists = [(np.argsort(-row), np.flatnonzero(wanted)) for row, wanted in zip(scores, relevant, strict=True)]
    assert list_metrics(lists)["ndcg50"] == pytest.approx(ndcg_score(relevant, scores, k=50))


def test_channels_work_without_attributes_terms_and_dislikes(recall_settings: RecallSettings) -> None:
    world = make_world(users=120, items=80, length=16)
    bare = dataclasses.replace(
        world,
        users=world.users.select(["user_id"]),
        items=world.items.select(["item_id"]),
        events=dataclasses.replace(world.events, labels=np.ones(len(world.events), np.int8)),
    )
    arrays = fit_vectors(bare, recall_settings, seed=0).arrays
    scores = arrays.user_vectors @ arrays.item_vectors.T
    own = np.arange(80)[None, :] % 4 == np.arange(120)[:, None] % 4
    assert scores[own].mean() > scores[~own].mean() + 0.3
    assert fit_popularity(bare.users, bare.events).segments == ("",)
