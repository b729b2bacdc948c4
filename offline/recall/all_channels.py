"""All recall steps of one cut, in order, in one process."""

from __future__ import annotations

import logging
import time
from typing import Any

from data_exchange_center.settings import Settings
from offline.recall.s1_term_recall import fit_term_channel
from offline.recall.s2_vector_recall import fit_vector_channel
from offline.recall.s3_item_recall import fit_item_channel
from offline.recall.s4_popularity_recall import fit_popularity_channel
from offline.recall.s5_recall_evaluation import evaluate_recall
from offline.recall.vector_training import Continued

log = logging.getLogger("marquee")

STEPS = {
    "term": fit_term_channel,
    "vector": fit_vector_channel,
    "item": fit_item_channel,
    "popularity": fit_popularity_channel,
    "evaluation": evaluate_recall,
}


def fit_recall(settings: Settings, cut: str, vectors: Continued | None = None) -> dict[str, Any]:
    """Fits every channel at a cut and judges them.

    Args:
        settings: of the run. cut: whose rows are known.
        vectors: what the vector channel goes on from.

    Returns:
        The evaluation, and `seconds` by step.
    """
    seconds: dict[str, float] = {}
    result: dict[str, Any] = {}
    for name, step in STEPS.items():
        started = time.perf_counter()
        result = fit_vector_channel(settings, cut, vectors) if name == "vector" else step(settings, cut)
        seconds[name] = round(time.perf_counter() - started, 2)
    log.info("   recall at cut %s: %s s", cut, seconds)
    return {**result, "seconds": seconds}
