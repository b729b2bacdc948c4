"""Popularity channel: what each user segment likes, also the answer for users of whom nothing is known."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import run_step
from data_exchange_center.workspace import Workspace
from offline.recall.assembly import save_popularity
from offline.recall.cut_option import chosen_cut, cut_parser
from offline.recall.known_rows import load_known_rows
from offline.recall.popularity import fit_popularity


def fit_popularity_channel(settings: Settings, cut: str) -> dict[str, Any]:
    """Fits the channel on the rows known at the cut and writes it to `recall/<cut>/`."""
    known = load_known_rows(settings, cut)
    channel = fit_popularity(known.users, known.events)
    folder = Workspace(settings).recall(cut)
    save_popularity(folder, channel, known.users)
    return {
        "cut": cut,
        "rows": len(known.events),
        "segments": len(channel.segments) - 1,
        "attributes": list(channel.attributes),
        "half_life_days": channel.half_life,
        "written": str(folder),
    }


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return fit_popularity_channel(settings, chosen_cut(settings, arguments))


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    run_step("s4_popularity_recall", cut_parser(__doc__ or ""), _step, argv)


if __name__ == "__main__":
    main()
