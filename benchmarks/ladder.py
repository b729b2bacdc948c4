"""What each rung of the degradation ladder costs in quality: protocol 2 with that rung forced.

    python benchmarks/ladder.py              on the newest release of the settings (of `make demo` or `make evaluate`)

The release is published to embedded stores of its own. For each rung a store is made to fail for every request; the lists come
from the code that answers requests, which must say in `degraded` that it did without exactly this part. The release must not have
seen the rows marked online (HOLDOUT=online, the default).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.common import machine
from benchmarks.support.away import Away
from data_exchange_center.errors import ReleaseError, StoreUnavailable
from data_exchange_center.release import find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.rank.s4_evaluate_chain import held_out, judge_chain, published_alone
from online.pipeline.context import Part
from online.pipeline.release_view import load_view
from online.stores.ports import Stores

log = logging.getLogger("marquee.benchmark")

TAKEN = StoreUnavailable("taken away for the measurement")
FIGURES = ("r50", "ndcg50", "hr50")


@dataclass(frozen=True)
class Rung:
    """What fails, and what lists then say they did without.

    Attributes:
        failing: port -> methods.
        channels: that requests ask for; empty: all.
    """

    failing: Mapping[str, tuple[str, ...]]
    degraded: frozenset[Part]
    channels: frozenset[str] = frozenset()

    def stores(self, whole: Stores) -> Stores:
        """The stores with this rung's away."""
        away: dict[str, Any] = {port: Away(getattr(whole, port), TAKEN, *names) for port, names in self.failing.items()}
        return replace(whole, **away)


def rung(part: Part, port: str, *methods: str) -> Rung:
    """A rung that stands for one part."""
    return Rung({port: methods}, frozenset((part,)))


AWAY: dict[str, tuple[str, ...]] = {
    "users": ("read",), "items": ("search",), "features": ("user", "items"), "scorer": ("score",)
}  # fmt: skip
LADDER: dict[str, Rung] = {
    "nothing is missing": Rung({}, frozenset()),
    "user_store": rung("user_store", "users", "read"),
    "item_index": rung("item_index", "items", "search"),
    "user_features": rung("user_features", "features", "user"),
    "item_features": rung("item_features", "features", "items"),
    "scorer": rung("scorer", "scorer", "score"),
    "recall": Rung({"items": ("search",)}, frozenset(("item_index", "recall")), frozenset(("vector",))),
    "every store": Rung(
        AWAY, frozenset(("user_store", "item_index", "user_features", "item_features", "scorer"))
    ),
    "every store, recall": Rung(
        AWAY,
        frozenset(("user_store", "item_index", "recall", "user_features", "item_features", "scorer")),
        frozenset(("vector",)),
    ),
}  # fmt: skip


def ladder(settings: Settings, release_id: str = "") -> dict[str, Any]:
    """Judges every rung.

    Returns:
        rungs: name -> r50, ndcg50, hr50, the differences to the whole chain (`lost_…`), and `degraded`.
    """
    release = find_release(settings, release_id)
    if release.manifest["settings"]["split"]["holdout"] != "online":
        raise ReleaseError(
            f"release {release.id} has seen every row, so nothing is left to judge it by; HOLDOUT=online"
        )
    positives = held_out(settings)
    rungs: dict[str, Any] = {}
    with published_alone(settings, release) as (own, stores):
        view = load_view(own, release.id)
        for name, one in LADDER.items():
            judged = judge_chain(own, view, one.stores(stores), positives, without=one.degraded, channels=one.channels)
            chain = {figure: round(judged["chain"][figure], 4) for figure in FIGURES}
            whole = rungs.get("nothing is missing", chain)
            lost = {f"lost_{figure}": round(whole[figure] - value, 4) for figure, value in chain.items()}
            rungs[name] = {**chain, **lost, "degraded": sorted(one.degraded), "r50_interval": judged["interval"]["r50"]}
            log.info("%-20s %s", name, {**chain, **lost})
    return {
        "name": "ladder",
        "machine": machine(),
        "release": release.id,
        "dataset": settings.dataset_name,
        "users": len(positives),
        "rungs": rungs,
    }


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--release", default="", help="a release's id (default: the newest)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return ladder(settings, parsed.release)

    run_step("ladder", arguments, step, argv)


if __name__ == "__main__":
    main()
