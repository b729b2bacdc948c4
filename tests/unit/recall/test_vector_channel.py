"""The factorization machine: folding, cold items, histories and the softmax estimate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_exchange_center.recall_parts import HistoryWeights, VectorArrays
from data_exchange_center.settings import RecallSettings
from offline.recall.known_rows import KnownRows
from offline.recall.side_features import numeric_buckets, side_features
from offline.recall.vector_model import FactorizationMachine
from offline.recall.vector_start import VectorStart
from offline.recall.vector_training import Continued, Trained, drawn_items, fit_vectors, histories
from tests.unit.recall.world import START, make_events, make_world


@pytest.fixture(scope="module")
def model(world: KnownRows) -> FactorizationMachine:
    """An untrained machine whose parameters are all different from zero."""
    positives = np.bincount(world.events.positives.items, minlength=160)
    made = FactorizationMachine(
        side_features(world.users), side_features(world.items), positives, world.events.item_events > 0, 6, seed=1
    )
    generator = torch.Generator().manual_seed(2)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return made


def test_inner_product_ranks_exactly_as_the_machine_does(model: FactorizationMachine, world: KnownRows) -> None:
    rows = np.flatnonzero(world.events.places == 9)[:3]
    users = world.events.users[rows]
    past = histories(world.events, rows, world.weights)
    items = np.arange(world.events.item_count)
    embedding, bias = model.item_embeddings(items)
    folded = (model.user_embeddings(users, past) @ embedding.T + bias).detach()
    for place, user in enumerate(users):
        by_definition = model(np.full(len(items), user), past[np.full(len(items), place)], items)
        torch.testing.assert_close(by_definition.log_softmax(0), folded[place].log_softmax(0), rtol=1e-4, atol=1e-4)
        ranked = by_definition[folded[place].argsort(descending=True)]
        assert (ranked[1:] <= ranked[:-1] + 1e-3).all()  # equal up to float32 rounding


def test_recall_vector_is_the_log_probability_times_the_number_of_items(trained: Trained) -> None:
    scores = trained.arrays.user_vectors @ trained.arrays.item_vectors.T
    np.testing.assert_allclose(np.exp(scores).mean(axis=1), 1.0, rtol=1e-4)


def test_a_cold_item_has_the_vector_of_its_side_features(model: FactorizationMachine, world: KnownRows) -> None:
    cold = world.events.item_count - 1
    assert world.events.item_events[cold] == 0
    embedding, bias = (part.detach().numpy() for part in model.item_embeddings(np.array([cold])))
    side = model.item_side[cold]
    tokens, linear = model.item_token.detach().numpy(), model.token_bias.detach().numpy()[:, 0]
    parts = tokens[side.indices] * side.data[:, None]
    pairs = (parts.sum(0) ** 2).sum() / 2 - (parts**2).sum() / 2
    np.testing.assert_allclose(embedding[0], parts.sum(0), rtol=1e-5)
    np.testing.assert_allclose(bias[0], linear[side.indices] @ side.data + pairs, rtol=1e-5)


def test_training_leaves_the_cold_item_where_its_attributes_are(trained: Trained, world: KnownRows) -> None:
    cold = world.events.item_count - 1  # of genre 3
    scores = trained.arrays.user_vectors @ trained.arrays.item_vectors[cold]
    fans = np.arange(world.events.user_count) % 4 == cold % 4
    assert scores[fans].mean() > scores[~fans].mean() + 0.5
    assert not trained.arrays.history_vectors[cold].any()


def test_a_user_without_events_has_the_vector_of_the_attributes(recall_settings: RecallSettings) -> None:
    world = make_world(users=60, items=40, length=10)
    silent = world.events.take(world.events.users != 7)
    found = fit_vectors(dataclasses.replace(world, events=silent), recall_settings, seed=0).arrays
    twin = fit_vectors(
        dataclasses.replace(world, events=silent.take(silent.users != 9)), recall_settings, seed=0
    ).arrays  # users 7 and 9 have the same attributes
    np.testing.assert_array_equal(twin.user_vectors[7], twin.user_vectors[9])
    assert np.isfinite(found.user_vectors).all()


def test_the_same_seed_gives_the_same_vectors(recall_settings: RecallSettings) -> None:
    world = make_world(users=60, items=40, length=10)
    first, second = (fit_vectors(world, recall_settings, seed=3).arrays for _ in range(2))
    np.testing.assert_array_equal(first.item_vectors, second.item_vectors)


def shuffled_world(world: KnownRows, order: np.ndarray) -> KnownRows:
    """The same world with its item rows in another order."""
    events = dataclasses.replace(world.events, items=np.argsort(order)[world.events.items])
    return dataclasses.replace(world, items=world.items.take(order), events=events)


def test_a_fit_begins_with_the_vectors_of_the_one_before(
    trained: Trained, world: KnownRows, recall_settings: RecallSettings, tmp_path: Path
) -> None:
    trained.model.save(tmp_path)
    order = np.random.default_rng(0).permutation(world.events.item_count)
    nothing_new = Continued(VectorStart.load(tmp_path), since=2**40)
    again = fit_vectors(shuffled_world(world, order), recall_settings, 7, nothing_new)
    assert again.losses == []
    np.testing.assert_allclose(again.arrays.item_vectors, trained.arrays.item_vectors[order], atol=1e-6)
    np.testing.assert_allclose(again.arrays.user_vectors, trained.arrays.user_vectors, atol=1e-5)


def test_what_came_since_is_learned(recall_settings: RecallSettings) -> None:
    world = make_world(users=160, items=80, length=20)
    fresh_items = np.arange(70, 79)
    since = START + 60 * 1200  # users come one after the other in this world
    earlier = world.events.take((world.events.timestamps <= since) & ~np.isin(world.events.items, fresh_items))
    before = fit_vectors(dataclasses.replace(world, events=earlier), recall_settings, 0)
    longer = recall_settings.model_copy(update={"epochs": 2})
    after = fit_vectors(world, longer, 0, Continued(before.model, since, replayed=1.0))
    positives = world.events.positives
    new = positives.take(positives.timestamps > since)
    random = np.random.default_rng(0).integers(0, 79, len(new))

    def wins(arrays: VectorArrays) -> float:
        users = arrays.user_vectors[new.users]
        own, other = ((users * arrays.item_vectors[rows]).sum(1) for rows in (new.items, random))
        return float((own > other).mean())

    assert wins(after.arrays) > wins(before.arrays) + 0.03
    assert len(after.losses) == 2


def test_a_history_ends_before_its_event_and_weighs_by_recency() -> None:
    events = make_events([(0, 4, 1), (0, 2, 0), (0, 1, 1), (1, 3, 1), (1, 0, 1)], users=2, items=5)
    weights = HistoryWeights(pooling=0.0)
    found = histories(events, np.array([0, 2, 4]), weights).toarray()
    newest, before = 5.0, 1 + 4 * np.exp(-1 / 8)
    expected = np.zeros((3, 5))
    expected[1, [2, 4]] = [0.5 * newest, before]
    expected[2, 3] = newest
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_history_is_cut_to_the_newest_events() -> None:
    events = make_events([(0, item, 1) for item in range(6)], users=1, items=6)
    found = histories(events, np.array([5]), HistoryWeights(limit=2)).toarray()[0]
    assert np.flatnonzero(found).tolist() == [3, 4]


def test_the_corrected_sample_estimates_the_sum_over_the_catalog() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=50)
    rate = random.dirichlet(np.full(50, 0.5))
    estimates = []
    for _ in range(4000):
        drawn, log_rate = drawn_items(rate, 30, random)
        estimates.append(np.exp(logits[drawn] - log_rate).sum())
    reachable = rate > 1e-12
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(np.exp(logits[reachable]).sum(), abs=5 * error)


def test_loss_falls_while_training(trained: Trained) -> None:
    assert trained.losses[-1] < trained.losses[0] - 0.1


def test_attributes_become_tokens() -> None:
    table = pa.table(
        {
            "item_id": list(range(12)),
            "title": ["x"] * 12,
            "genres": pa.array([["A", "B"]] * 6 + [["A"]] * 5 + [["rare"]], pa.list_(pa.string())),
            "color": pa.array(["red"] * 5 + ["blue"] * 6 + [None]),
            "year": pa.array([1990] * 6 + [2000] * 6),
        }
    )
    found = side_features(table)
    assert found.tokens == ("genres=A", "genres=B", "color=blue", "color=red", "year=bucket 0", "year=bucket 1")
    assert found.matrix[0].toarray()[0].tolist() == [0.5, 0.5, 0, 1, 1, 0]
    assert found.matrix[11].toarray()[0].tolist() == [0, 0, 0, 0, 0, 1]


def test_a_table_without_attributes_has_no_tokens() -> None:
    found = side_features(pa.table({"user_id": [1, 2, 3]}))
    assert found.count == 0
    assert found.matrix.shape == (3, 0)


def test_equal_numbers_share_a_bucket() -> None:
    numbers = np.array([0.0, 0, 0, 0, 1, 2, 3, 9])
    buckets = numeric_buckets(numbers, 4)
    assert len(set(buckets[:4].tolist())) == 1
    assert (np.diff(buckets) >= 0).all()
    assert buckets[-1] > buckets[0]
