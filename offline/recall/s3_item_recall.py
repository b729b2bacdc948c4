"""Item-to-item channel: EASE weights between items, exact for the head of the catalog, truncated to the strongest neighbours."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_exchange_center.settings import Settings
from data_exchange_center.step import run_step
from data_exchange_center.workspace import Workspace
from offline.recall.cut_option import chosen_cut, cut_parser
from offline.recall.known_rows import load_known_rows
from offline.recall.similarity import fit_similarity
from offline.recall.thread_limit import thread_limit


def fit_item_channel(settings: Settings, cut: str) -> dict[str, Any]:
    """Fits the channel on the rows known at the cut and writes it to `recall/<cut>/`."""
    known = load_known_rows(settings, cut)
    started = time.perf_counter()
    with thread_limit(settings.recall.threads):
        similar = fit_similarity(known.events, known.weights, settings.recall)
    seconds = time.perf_counter() - started
    folder = Workspace(settings).recall(cut)
    similar.save(folder, "item")
    lengths = np.diff(similar.indptr)
    return {
        "cut": cut,
        "rows": len(known.events),
        "items_with_neighbours": int((lengths > 0).sum()),
        "neighbours_per_item": round(float(lengths[lengths > 0].mean()), 1) if lengths.any() else 0.0,
        "exact": int((known.events.item_events > 0).sum()) <= settings.recall.exact_items,
        "mib": round(similar.values.nbytes * 2 / 2**20, 1),
        "solve_s": round(seconds, 2),
        "written": str(folder),
    }


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return fit_item_channel(settings, chosen_cut(settings, arguments))


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    run_step("s3_item_recall", cut_parser(__doc__ or ""), _step, argv)


if __name__ == "__main__":
    main()
