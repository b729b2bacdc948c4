"""Everything once: data, every offline stage, a release, publish, the server, one request and the parity check.

With DATASET=criteo (or criteo-synthetic) it is the click scene's, with DATASET=repair_shop the repair shop's: click_demo.py and
repair_demo.py say what is done there.

Each stage is a program of its own that can be run by hand in the same order; this one calls them and shows the answer.
When the chosen dataset can be had neither locally nor over the network, it says so and goes on with generated data.
"""

from __future__ import annotations

import argparse
import json
import logging
import urllib.request
from typing import Any

from data_exchange_center import columns as c
from data_exchange_center.programs import run_program, running_program
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.click_demo import click_demo
from offline_to_online.demo_steps import free_port, timed, wait_until_serving, with_available_data
from offline_to_online.repair_demo import repair_demo

log = logging.getLogger("marquee")


def demo(settings: Settings, requests: int = 300, size: int = 10) -> dict[str, Any]:
    """Runs the whole chain.

    Args:
        settings: `data.dataset` falls back to `synthetic` when it cannot be had.
        requests: of the parity check.
        size: items in the recommendation that is shown.

    Returns:
        ok, dataset, release, users, items, interactions, recommendation, check, and seconds by stage.
    """
    seconds: dict[str, float] = {}
    settings = timed(seconds, "data", with_available_data, settings)
    offline = timed(seconds, "offline", run_program, "offline/s0_run_offline.py", [], settings)
    settings = settings.with_values(**{"serve.port": free_port(settings.serve.host, settings.serve.port)})
    # the server starts while the release is published: it is ready as soon as the pointer names one
    with running_program("online/main/s1_server.py", [], settings):
        published = timed(
            seconds, "publish", run_program, "offline_to_online/publish.py", ["--release", offline["release"]], settings
        )
        url = f"http://{settings.serve.host}:{settings.serve.port}"
        timed(seconds, "server", wait_until_serving, url, published["release"])
        answer = recommend(url, offline["example_user"], size)
        check = timed(
            seconds,
            "check",
            run_program,
            "offline_to_online/rank/s3_check_offline_and_online.py",
            ["--requests", str(requests), "--url", url],
            settings,
        )
    titles = titles_of(find_release(settings, published["release"], verify=False))
    log.info(
        "%d items for user %s from release %s:", len(answer["item_list"]), offline["example_user"], answer["release"]
    )
    for rank, item in enumerate(answer["item_list"], start=1):
        log.info(
            "  %2d. item %-8s score %.4f  like %.4f  %s",
            rank,
            item["itemid"],
            item["score"],
            item["like"],
            titles.get(item["itemid"], ""),
        )
    return {
        "ok": bool(check["ok"]) and len(answer["item_list"]) == size and answer["release"] == published["release"],
        "dataset": settings.dataset_name,
        "release": published["release"],
        **{name: offline[name] for name in ("users", "items", "interactions")},
        "recommendation": answer["item_list"],
        "degraded": answer["degraded"],
        "check": check,
        "stages_s": seconds,
    }


def titles_of(release: Release) -> dict[int | str, str]:
    """Item id -> title, empty when the log has none."""
    items = release.table("items")
    if c.TITLE not in items.column_names:
        return {}
    return dict(zip(items[c.ITEM_ID].to_pylist(), items[c.TITLE].to_pylist(), strict=True))


def recommend(url: str, user: int | str, size: int) -> dict[str, Any]:
    """One request, as any client would make it."""
    request = urllib.request.Request(  # noqa: S310 - our own http server
        f"{url}/ml/rec",
        data=json.dumps({"userid": user, "size": size}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--requests", type=int, default=300, help="requests of the parity check")
    arguments.add_argument("--size", type=int, default=10, help="items in the recommendation that is shown")

    arguments.add_argument("--days", type=int, default=3, help="of updates, in the repair shop's demo")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        if settings.scene == settings.serve.predict_scene:
            return repair_demo(settings, parsed.days)
        if settings.scene == settings.serve.upload_scene:
            return click_demo(settings)
        return demo(settings, parsed.requests, parsed.size)

    run_step("demo", arguments, step, argv)


if __name__ == "__main__":
    main()
