"""Judges the channels of a cut on the positives that the next cut adds: each alone, in the union, and the merged list."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_exchange_center.candidates import CHANNELS, union
from data_exchange_center.list_metrics import list_metrics
from offline.recall.held_out import HeldOut
from offline.recall.lists import Finder, Found

USERS = 5000  # judged at most
SHOWN = 50  # first items of a list that count for coverage
MERGED = 200  # the merged list is judged at this length
DEPTHS = (50, 100, 200, 300, 500)


def evaluate(finder: Finder, held_out: HeldOut, positives: np.ndarray) -> dict[str, Any]:
    """Measures everything of the recall report.

    Args:
        finder: the channels of a cut. held_out: what they should find.
        positives: int [items], known positives per item: the plain popularity line.

    Returns:
        recall: channel -> r50, r100, r200, ndcg50, hr50, coverage, gain (of the union's recall, lost without this channel),
        only_here (candidates per user that no other channel found) and only_hits (positives found by this channel alone);
        union: r50..r500 and ndcg50 of the merged list, size and recall of everything found;
        popularity: the same items for everybody; users: how many were judged. `note` alone when nothing is held out.
    """
    judged = held_out.sample(USERS)
    if not len(judged.users):
        return {"users": 0, "note": "no later positives: there is nothing to judge this cut on"}
    found = [finder.find(int(user)) for user in judged.users]
    everybody = np.argsort(-positives, kind="stable")
    popular = [everybody[finder.eligible(int(user))[everybody]][: finder.size] for user in judged.users]
    return {
        "users": len(judged.users),
        "recall": {channel: _channel(channel, found, judged, finder) for channel in CHANNELS},
        "union": _union(found, judged, finder),
        "popularity": _list_metrics(popular, judged, finder),
    }


def _list_metrics(lists: list[np.ndarray], judged: HeldOut, finder: Finder) -> dict[str, float]:
    metrics = list_metrics(zip(lists, judged.positives, strict=True))
    shown = np.unique(np.concatenate([rows[:SHOWN] for rows in lists]))
    del metrics["users"]
    return _rounded({**metrics, "coverage": len(shown) / finder.events.item_count})


def _channel(channel: str, found: list[Found], judged: HeldOut, finder: Finder) -> dict[str, float]:
    lists = [result.lists[channel] for result in found]
    others = [union(rows for name, rows in result.lists.items() if name != channel) for result in found]
    only = [np.setdiff1d(own, other) for own, other in zip(lists, others, strict=True)]
    hits = [np.isin(rows, wanted).sum() for rows, wanted in zip(only, judged.positives, strict=True)]
    counts = np.array([len(wanted) for wanted in judged.positives])
    return {
        **_list_metrics(lists, judged, finder),
        "gain": round(float(np.mean(hits / counts)), 4),
        "only_here": round(float(np.mean([len(rows) for rows in only])), 2),
        "only_hits": int(np.sum(hits)),
    }


def _union(found: list[Found], judged: HeldOut, finder: Finder) -> dict[str, float]:
    merged = [result.merged(finder.arrays, max(DEPTHS)) for result in found]
    everything = [union(result.lists.values()) for result in found]
    pairs = list(zip(merged, judged.positives, strict=True))
    metrics = list_metrics(pairs, recall=DEPTHS)
    del metrics["users"]
    reached = [np.isin(wanted, rows).mean() for rows, wanted in zip(everything, judged.positives, strict=True)]
    size = np.mean([len(rows) for rows in everything])
    return {**_rounded(metrics), "found": round(float(np.mean(reached)), 4), "size": round(float(size), 1)}


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
