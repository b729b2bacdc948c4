"""Every score that a server answers on real servers, recomputed offline from the release's own files.

    python benchmarks/parity.py                on a release trained on generated data
    python benchmarks/parity.py --tiny         on a release without training
    python benchmarks/parity.py --embedded     on the embedded stores

It runs the check of `make check`: real users' requests of every kind, over the run every item; raw features, recall scores,
what the index found, scores and likes are compared one by one.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from benchmarks.support.references import offline_score, reference_release
from benchmarks.support.stack import REAL, end_on_sigterm, marquee_server, stack
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.publish import publish
from offline_to_online.rank.s3_check_offline_and_online import compare, connected, summary


def parity(requests: int, *, tiny: bool = False, real: bool = True) -> dict[str, Any]:
    """The proof, on stores of its own.

    Raises:
        Unavailable: `real`, and this machine lacks a server.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="marquee-parity-")))
        made, release = reference_release(folder, tiny=tiny)
        settings = opened.enter_context(stack(made, folder, REAL if real else ())).settings
        publish(settings, release.id)
        score = offline_score(release)
        url = opened.enter_context(marquee_server(settings))
        with connected(url) as ask:
            found = summary(compare(settings, release, ask, score, requests))
    stores = "real servers" if real else "embedded"
    return {"name": "parity", "machine": machine(), "stores": stores, "trained": not tiny, **found}


def main(argv: list[str] | None = None) -> None:
    end_on_sigterm()
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--requests", type=int, default=1000, help="how many to send")
    arguments.add_argument("--tiny", action="store_true", help="on a release without training")
    arguments.add_argument("--embedded", action="store_true", help="on the embedded stores")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return parity(parsed.requests, tiny=parsed.tiny, real=not parsed.embedded)

    run_step("parity", arguments, step, argv)


if __name__ == "__main__":
    main()
