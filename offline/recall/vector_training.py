"""Trains the factorization machine: which item did the user choose next, among the catalog?

Each positive event is one example: the user as of just before it (id, attributes, the history so far) against the chosen item
and items drawn from the catalog, by sampled softmax. What was drawn often is corrected for: an item that is in the sample with
probability r enters the sum with its logit minus log r (logQ), so that the sum estimates that over the whole catalog.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from tqdm import tqdm

from data_exchange_center import columns as c
from data_exchange_center.recall_parts import HistoryWeights, VectorArrays
from data_exchange_center.settings import RecallSettings
from offline.recall.known_rows import Events, KnownRows
from offline.recall.side_features import side_features
from offline.recall.vector_model import FactorizationMachine
from offline.recall.vector_start import VectorStart, start_of

UNIFORM_SHARE = 0.5  # of the drawn items; the others are drawn by popularity
RIDGE = 1.0  # weight of the summed squares against one positive's loss
AVERAGED_SHARE = 0.16  # of the steps: the final weights are an average over about the last ones
SMALLEST_BATCH, BATCHES = 32, 80  # small logs get smaller batches, so that an epoch still has this many
NORMALISER_ITEMS = 8192  # larger catalogs are sampled
CHUNK = 4096  # users whose vectors are made at once


@dataclass(frozen=True)
class Trained:
    """What training leaves: the arrays of the vector channel, the mean loss of each epoch, and what the next fit begins with."""

    arrays: VectorArrays
    losses: list[float]
    model: VectorStart


@dataclass(frozen=True)
class Continued:
    """A fit that goes on from another one, on what is new and some of what is old.

    Attributes:
        start: the other fit. since: unix seconds: positives after it are new.
        replayed: old positives for each new one.
    """

    start: VectorStart
    since: int
    replayed: float = 4.0


def fit_vectors(known: KnownRows, settings: RecallSettings, seed: int, continued: Continued | None = None) -> Trained:
    """Trains on the known rows and folds every user and item into vectors.

    Args:
        known: the rows known at the cut; labels of later rows are not looked at.
        settings: sizes and rates.
        seed: of every random choice; same seed, same machine: same vectors.
        continued: what to go on from; by default everything is learned anew.
    """
    events = known.events
    positives = events.positives
    popularity = np.bincount(positives.items, minlength=events.item_count)
    sides = side_features(known.users), side_features(known.items)
    model = FactorizationMachine(*sides, popularity, events.item_events > 0, settings.dimension, seed)
    ids = known.users[c.USER_ID].combine_chunks(), known.items[c.ITEM_ID].combine_chunks()
    made = start_of(model, *ids, [side.tokens for side in sides])
    random = np.random.default_rng(seed)
    examples = np.flatnonzero(events.labels > 0)
    if continued is not None:
        continued.start.hand_over(model, made)
        examples = _new_and_replayed(events, examples, continued, random)
    losses = _train(model, events, known.weights, settings, popularity, random, examples)
    return Trained(_folded(model, events, known.weights, popularity, seed), losses, made)


def _new_and_replayed(
    events: Events, positives: np.ndarray, continued: Continued, random: np.random.Generator
) -> np.ndarray:
    new = events.timestamps[positives] > continued.since
    old = positives[~new]
    drawn = random.permutation(old)[: round(continued.replayed * int(new.sum()))]
    return np.sort(np.concatenate((positives[new], drawn)))


def histories(events: Events, rows: np.ndarray, weights: HistoryWeights) -> sp.csr_matrix:
    """The history features x as of just before the events given.

    Args:
        events: all known events. rows: int64 [n], places in them.
        weights: how history counts.

    Returns:
        CSR float32 [n, items]. An item met twice has two entries, which add up.
    """
    return _histories(events, rows, events.places[rows], weights)


def _histories(events: Events, ends: np.ndarray, places: np.ndarray, weights: HistoryWeights) -> sp.csr_matrix:
    """CSR of the `min(places, limit)` events before each of `ends`."""
    lengths = np.minimum(places, weights.limit)
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    age = np.repeat(indptr[1:], lengths) - 1 - np.arange(indptr[-1])
    chosen = np.repeat(ends, lengths) - 1 - age
    weight = weights.at(events.labels[chosen], age)
    sums = np.maximum(np.bincount(np.repeat(np.arange(len(ends)), lengths), weight, len(ends)), 1.0)
    weight /= np.repeat(sums**weights.pooling, lengths).astype(np.float32)
    return sp.csr_matrix((weight, events.items[chosen], indptr), (len(ends), events.item_count))


def _train(
    model: FactorizationMachine,
    events: Events,
    weights: HistoryWeights,
    settings: RecallSettings,
    popularity: np.ndarray,
    random: np.random.Generator,
    examples: np.ndarray,
) -> list[float]:
    if not len(examples):
        return []
    batch = int(np.clip(len(examples) // BATCHES, SMALLEST_BATCH, settings.batch_size))
    steps = settings.epochs * -(-len(examples) // batch)
    dense = [parameter for parameter in model.parameters() if parameter is not model.user_id.weight]
    optimizers = [torch.optim.Adam(dense, fused=True), torch.optim.SparseAdam([model.user_id.weight])]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, max(steps, 2), pct_start=0.1)
        for optimizer in optimizers
    ]
    average = [parameter.detach().clone() for parameter in dense]
    fresh = min(1.0, 1 / (AVERAGED_SHARE * steps))
    rate = _draw_rates(popularity, model.known.numpy() > 0)
    losses = []
    with tqdm(total=steps, desc="FM", unit="batch", leave=False) as progress:
        for _ in range(settings.epochs):
            order, total = random.permutation(examples), 0.0
            for first in range(0, len(order), batch):
                rows = np.sort(order[first : first + batch])
                loss = _loss(model, events, rows, weights, rate, settings.negatives, random)
                for optimizer in optimizers:
                    optimizer.zero_grad()
                (loss + RIDGE / len(examples) * _squares(model, events.users[rows])).backward()
                for optimizer, schedule in zip(optimizers, schedules, strict=True):
                    optimizer.step()
                    schedule.step()
                for mean, parameter in zip(average, dense, strict=True):
                    mean.lerp_(parameter.detach(), fresh)
                total += loss.item() * len(rows)
                progress.update()
            losses.append(total / len(order))
            progress.set_postfix(loss=f"{losses[-1]:.3f}")
    with torch.no_grad():
        for mean, parameter in zip(average, dense, strict=True):
            parameter.copy_(mean)
    return losses


def _draw_rates(popularity: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[items] float64, sums to 1: how likely one draw is to take an item; never one without known rows."""
    uniform = known / known.sum()
    total = popularity.sum()
    return uniform if not total else UNIFORM_SHARE * uniform + (1 - UNIFORM_SHARE) * popularity / total


def drawn_items(rate: np.ndarray, draws: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Items of a sample, each once, and log of the probability that such a sample holds them: int64 [n], float32 [n]."""
    drawn = np.unique(random.choice(len(rate), draws, p=rate))
    return drawn, np.log(-np.expm1(draws * np.log1p(-np.minimum(rate[drawn], 1 - 1e-12)))).astype(np.float32)


def _loss(
    model: FactorizationMachine,
    events: Events,
    rows: np.ndarray,
    weights: HistoryWeights,
    rate: np.ndarray,
    draws: int,
    random: np.random.Generator,
) -> torch.Tensor:
    """Mean over the examples of minus log of the estimated probability of the chosen item."""
    user = model.user_embeddings(events.users[rows], histories(events, rows, weights))
    drawn, log_rate = drawn_items(rate, draws, random)
    chosen, place = np.unique(events.items[rows], return_inverse=True)
    embedding, bias = model.item_embeddings(np.concatenate((drawn, chosen)))
    other = user @ embedding[: len(drawn)].T + bias[: len(drawn)] - torch.from_numpy(log_rate)
    itself = torch.from_numpy(drawn[None, :] == events.items[rows][:, None])
    at = torch.from_numpy(place) + len(drawn)
    own = (user * embedding[at]).sum(1) + bias[at]
    total = torch.logaddexp(own, torch.logsumexp(other.masked_fill(itself, -torch.inf), 1))
    return (total - own).mean()


def _squares(model: FactorizationMachine, users: np.ndarray) -> torch.Tensor:
    """What the ridge weighs: the embeddings, of users only those of the batch."""
    tables: list[torch.Tensor] = [model.item_id, model.history_residual, model.item_token, model.user_token]
    tables.append(model.user_id(torch.from_numpy(np.unique(users))))
    return torch.stack([(table**2).sum() for table in tables]).sum()


@torch.no_grad()
def _folded(
    model: FactorizationMachine, events: Events, weights: HistoryWeights, popularity: np.ndarray, seed: int
) -> VectorArrays:
    embedding, bias = model.item_embeddings(np.arange(events.item_count))
    rows, offsets = _normaliser(popularity, seed)
    arrays = VectorArrays(
        item_vectors=np.column_stack((embedding.numpy(), bias.numpy(), np.ones(len(bias), np.float32))),
        user_vectors=np.empty((0, embedding.shape[1] + 2), np.float32),
        history_vectors=model.history_embeddings().numpy(),
        newcomer_vector=model.user_constant.numpy(),
        normaliser_rows=rows,
        normaliser_offsets=offsets,
    )
    parts = []
    for first in range(0, events.user_count, CHUNK):
        users = np.arange(first, min(first + CHUNK, events.user_count))
        ends = events.starts[users + 1]
        past = _histories(events, ends, ends - events.starts[users], weights)
        parts.append(arrays.folded(model.user_embeddings(users, past).numpy()))
    return replace(arrays, user_vectors=np.concatenate(parts))


def _normaliser(popularity: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items over which the log-normaliser sums: all of a small catalog, else a sample with its logQ correction."""
    items = len(popularity)
    if items <= NORMALISER_ITEMS:
        return np.arange(items, dtype=np.int32), np.zeros(items, np.float32)
    rate = _draw_rates(popularity, np.ones(items, bool))
    rows, log_rate = drawn_items(rate, NORMALISER_ITEMS, np.random.default_rng(seed))
    return rows.astype(np.int32), -log_rate
