"""Term channel: recency-weighted term preferences of every user, and each item's strength in its terms."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_exchange_center.settings import Settings
from data_exchange_center.step import run_step
from data_exchange_center.workspace import Workspace
from offline.recall.assembly import save_terms
from offline.recall.cut_option import chosen_cut, cut_parser
from offline.recall.known_rows import load_known_rows
from offline.recall.terms import fit_terms


def fit_term_channel(settings: Settings, cut: str) -> dict[str, Any]:
    """Fits the channel on the rows known at the cut and writes it to `recall/<cut>/`.

    Returns:
        What was read and written; `note` when the items have no terms and the channel stays empty.
    """
    known = load_known_rows(settings, cut)
    channel = fit_terms(known.items, known.events, known.weights)
    folder = Workspace(settings).recall(cut)
    save_terms(folder, channel, known.users)
    per_user = np.diff(channel.preferences.indptr)
    result = {
        "cut": cut,
        "rows": len(known.events),
        "terms": len(channel.terms),
        "items_with_terms": len(np.unique(channel.strength.indices)),
        "users_with_preferences": int((per_user > 0).sum()),
        "terms_per_user": round(float(per_user.mean()), 2),
        "written": str(folder),
    }
    return result if channel.terms else {**result, "note": "the items have no terms: this channel finds nothing"}


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return fit_term_channel(settings, chosen_cut(settings, arguments))


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    run_step("s1_term_recall", cut_parser(__doc__ or ""), _step, argv)


if __name__ == "__main__":
    main()
