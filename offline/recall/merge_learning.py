"""Learns the weights of the merge rule: what of the channels' scores keeps the most held-out positives among the candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_exchange_center.candidates import CHANNELS, DEFAULT_WEIGHTS, feature_of, merged_scores, union
from offline.recall.held_out import HeldOut
from offline.recall.lists import Finder

USERS = 2000  # judged at most
SIZE = 200  # of the merged list
CHOICES: Mapping[str, tuple[float, ...]] = {
    "vector": (1.0, 0.5, 0.0),
    "item": (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    "term": (0.0, 0.1, 0.2, 0.4),
    "popularity": (0.0, 0.1, 0.2, 0.4),
}
ROUNDS = 2
LEAST_GAIN = 5e-4  # a change that gains less is left alone


def learn_weights(finder: Finder, held_out: HeldOut) -> tuple[dict[str, float], float]:
    """Coordinate search for the largest mean recall of the merged list cut to `SIZE`.

    Returns:
        The weights, and that recall. The defaults, and 0, when nothing is held out.
    """
    best_weights = dict(DEFAULT_WEIGHTS)
    judged = held_out.sample(USERS)
    if not len(judged.users):
        return best_weights, 0.0
    scores, wanted, counts = _tables(finder, judged)
    best_recall = _recall(scores, wanted, counts, best_weights)
    for _ in range(ROUNDS):
        for channel in CHANNELS:
            for weight in CHOICES[channel]:
                tried = {**best_weights, channel: weight}
                if not any(tried.values()):
                    continue
                recall = _recall(scores, wanted, counts, tried)
                if recall > best_recall + LEAST_GAIN:
                    best_weights, best_recall = tried, recall
    return best_weights, best_recall


def _tables(finder: Finder, judged: HeldOut) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Candidates of all judged users side by side.

    Returns:
        `recall_<channel>` -> float32 [users x width], padded with -inf in the first channel; bool [users, width], which
        candidates are positives; int [users], positives per user.
    """
    rows, found = [], []
    for user in judged.users:
        result = finder.find(int(user))
        candidates = union(result.lists.values())
        rows.append(candidates)
        found.append({name: score[candidates] for name, score in result.scores.items()})
    width = max(SIZE, *(len(candidates) for candidates in rows))
    names = [feature_of(channel) for channel in CHANNELS]
    scores = {name: np.zeros((len(rows), width), np.float32) for name in names}
    scores["padding"] = np.zeros((len(rows), width), np.float32)
    wanted = np.zeros((len(rows), width), bool)
    for place, (candidates, own) in enumerate(zip(rows, found, strict=True)):
        for name in names:
            scores[name][place, : len(candidates)] = own[name]
        scores["padding"][place, len(candidates) :] = -np.inf
        wanted[place, : len(candidates)] = np.isin(candidates, judged.positives[place])
    return scores, wanted, np.array([len(positives) for positives in judged.positives])


def _recall(scores: dict[str, np.ndarray], wanted: np.ndarray, counts: np.ndarray, weights: dict[str, float]) -> float:
    users, width = wanted.shape
    flat = {name: table.ravel() for name, table in scores.items()}
    merged = (merged_scores(flat, weights) + flat["padding"]).reshape(users, width)
    kept = (
        np.argpartition(-merged, SIZE - 1, axis=1)[:, :SIZE] if width > SIZE else np.tile(np.arange(width), (users, 1))
    )
    return float((np.take_along_axis(wanted, kept, axis=1).sum(axis=1) / counts).mean())
