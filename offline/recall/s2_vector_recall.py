"""Vector channel: a factorization machine trained with sampled softmax and logQ correction, folded into vectors."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import run_step
from data_exchange_center.workspace import Workspace
from offline.recall.cut_option import chosen_cut, cut_parser
from offline.recall.known_rows import load_known_rows
from offline.recall.thread_limit import thread_limit
from offline.recall.vector_training import Continued, fit_vectors


def fit_vector_channel(settings: Settings, cut: str, continued: Continued | None = None) -> dict[str, Any]:
    """Fits the channel on the rows known at the cut and writes it to `recall/<cut>/`.

    Args:
        settings: of the run. cut: whose rows are known.
        continued: what to go on from; by default everything is learned anew.

    Returns:
        What was read and written, the loss of each epoch and how many items are reached through their attributes alone.
    """
    known = load_known_rows(settings, cut)
    started = time.perf_counter()
    with thread_limit(settings.recall.threads):
        trained = fit_vectors(known, settings.recall, settings.seed, continued)
    seconds = time.perf_counter() - started
    folder = Workspace(settings).recall(cut)
    trained.arrays.save(folder)
    trained.model.save(folder / "parts")
    return {
        "cut": cut,
        "rows": len(known.events),
        "positives": len(known.events.positives),
        "users": known.events.user_count,
        "items": known.events.item_count,
        "cold_items": int((known.events.item_events == 0).sum()),
        "dimension": settings.recall.dimension,
        "losses": [round(loss, 4) for loss in trained.losses],
        "training_s": round(seconds, 2),
        "written": str(folder),
    }


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return fit_vector_channel(settings, chosen_cut(settings, arguments))


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    run_step("s2_vector_recall", cut_parser(__doc__ or ""), _step, argv)


if __name__ == "__main__":
    main()
