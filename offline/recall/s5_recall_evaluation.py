"""Puts the channels together and judges them on later positives: each alone, its marginal gain in the union, the merged list.

The positives judge the merged list with weights that were learned at an earlier cut (or the defaults); only then are new
weights learned from them, for the next cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_exchange_center.recall_scores import tastes
from data_exchange_center.settings import Settings
from data_exchange_center.step import run_step
from data_exchange_center.workspace import Workspace, write_json
from offline.recall.assembly import assemble
from offline.recall.cut_option import chosen_cut, cut_parser
from offline.recall.evaluation import evaluate
from offline.recall.held_out import HeldOut
from offline.recall.known_rows import NEXT_CUT, load_known_rows
from offline.recall.lists import Finder
from offline.recall.merge_learning import learn_weights
from offline.recall.thread_limit import thread_limit


def evaluate_recall(settings: Settings, cut: str) -> dict[str, Any]:
    """Assembles `recall/<cut>/`, judges it on the rows that the next cut adds, and learns the merge rule's next weights.

    Rows held out for the online traffic judge the serving cut; no weight that a release uses is learned from them.

    Returns:
        The content of `evaluation.json`: `recall`, `union`, `popularity` (see evaluation.py), the merge rule's weights.
    """
    with thread_limit(settings.recall.threads):
        return _evaluate(settings, cut)


def _evaluate(settings: Settings, cut: str) -> dict[str, Any]:
    known = load_known_rows(settings, cut)
    arrays, profiles = assemble(settings, known)
    finder = Finder(
        arrays, tastes(profiles, np.asarray(arrays.vectors.user_vectors)), known.events, settings.recall.candidates
    )
    held_out = HeldOut.of(known.later, known.events)
    positives = np.bincount(known.events.positives.items, minlength=known.events.item_count)
    result = {
        "cut": cut,
        "judged_on": NEXT_CUT.get(cut, ""),
        **evaluate(finder, held_out, positives),
        "merge": dict(arrays.weights),
    }
    folder = Workspace(settings).recall(cut)
    if len(held_out.users) and _may_learn(settings, cut):
        weights, reached = learn_weights(finder, held_out)
        write_json(folder / "parts" / "merge.json", {"weights": weights, "r200": round(reached, 4)})
        result["learned"] = {"weights": weights, "r200": round(reached, 4)}
    write_json(folder / "evaluation.json", result)
    return result


def _may_learn(settings: Settings, cut: str) -> bool:
    """Whether the labels after this cut are known to a later release."""
    return not (settings.split.holdout == "online" and NEXT_CUT[cut] == "all")


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return evaluate_recall(settings, chosen_cut(settings, arguments))


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    run_step("s5_recall_evaluation", cut_parser(__doc__ or ""), _step, argv)


if __name__ == "__main__":
    main()
