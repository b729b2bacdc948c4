"""The repair-shop scene from its history to its days: rows, vocabularies and vectors of texts, a first model, a release, publish,
the server, predictions compared with what the release's files say; then brands that nobody has seen, served at once by the ids that
they are given, and days of updates, after which their scores are ones that were learned. Nothing is restarted in between.

Each stage is a program of its own that can be run by hand in the same order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import requests

from data_exchange_center.errors import MarqueeError
from data_exchange_center.programs import run_program, running_program
from data_exchange_center.ready_rows import known_ids, raw_columns_of, ready_rows
from data_exchange_center.release import Release, find_release
from data_exchange_center.scored_rows import graph_inputs, row_form
from data_exchange_center.settings import Settings
from data_exchange_center.text_encoder import TEXT, TextEncoder
from data_exchange_center.vocabulary import UNKNOWN
from data_exchange_center.workspace import read_table
from offline_to_online.demo_steps import free_port, timed, wait_until_serving
from offline_to_online.rank.growing_vocabularies import growing_features
from online.pipeline.row_scoring import auc_of
from online.stores.onnx_scorer import open_model
from online.stores.open import open_users

log = logging.getLogger("marquee")

TOLERANCE = 1e-5  # of a probability
COMPARED = 60  # rows that are asked for and compared with the release's files
JUDGED = 120  # rows of new brands that are scored before and after
REQUEST_S = 30.0
JOB_S = 600.0
DAILY = "offline/incremental/s2_daily_job.py"


def repair_demo(settings: Settings, days: int = 3) -> dict[str, Any]:
    """Runs the whole story.

    Args:
        days: of updates; a new brand must appear on one of them, and there is one more day, whose rows judge it.

    Returns:
        ok, dataset, release, rows, first (of the first training), prediction, check, days, new_brands, vocabularies, and seconds by
        stage.

    Raises:
        MarqueeError: no brand appears on these days, or a stage failed; the message says which.
    """
    seconds: dict[str, float] = {}
    data = timed(seconds, "data", run_program, "offline/datasets/s0_fetch_data.py", [], settings)
    updates, judge = chosen_days(data["days"], days)
    brands = [brand for day in updates for brand in day["new_brands"]]
    first = timed(seconds, "first training", run_program, "offline/incremental/s1_init_train.py", [], settings, JOB_S)
    settings = settings.with_values(
        **{"serve.port": free_port(settings.serve.host, settings.serve.port), "serve.new_tokens_per_minute": 1000}
    )
    url = f"http://{settings.serve.host}:{settings.serve.port}"
    with running_program("online/main/s1_server.py", [], settings):
        timed(seconds, "server", wait_until_serving, url, first["release"])
        known = read_table(Path(updates[0]["file"]))
        asked = known.filter(pc.invert(pc.is_in(known["car_brand"], pa.array(brands, pa.string())))).slice(0, COMPARED)
        answers = timed(seconds, "predictions", predictions, url, asked)
        check = compared(settings, find_release(settings, first["release"]), asked, answers)
        show(asked, answers)
        rows = read_table(Path(judge["file"]))
        rows = rows.filter(pc.is_in(rows["car_brand"], pa.array(brands, pa.string()))).slice(0, JUDGED)
        before = timed(seconds, "new brands", predictions, url, rows)
        log.info("%d new brands are served at once: ids %s", len(brands), ids_of(rows, before))
        done = [timed(seconds, f"day {day['date']}", one_day, settings, url, day) for day in updates]
        after = timed(seconds, "new brands again", predictions, url, rows)
    new = learned(rows, before, after)
    vocabularies = run_program(
        "offline_to_online/rank/s5_check_vocabulary.py", ["--release", done[-1]["release"]], settings
    )
    log.info(
        "new brands: AUC %.4f by the first release, %.4f by the last, which has learned them",
        new["auc_before"],
        new["auc_after"],
    )
    return {
        "ok": bool(check["ok"] and new["ok"] and vocabularies["ok"] and done[-1]["served"] == done[-1]["release"]),
        "dataset": settings.dataset_name,
        "release": done[-1]["release"],
        "rows": {"history": data["history"]["rows"], "day": data["rows_per_day"]},
        "first": {name: first[name] for name in ("release", "auc", "logloss")},
        "prediction": answers[0],
        "check": check,
        "days": done,
        "new_brands": new,
        "vocabularies": vocabularies["features"],
        "stages_s": seconds,
    }


def chosen_days(days: Sequence[Mapping[str, Any]], count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The first days of the log, and the one after them.

    Raises:
        MarqueeError: the log is too short, or no brand appears on them.
    """
    if not 1 <= count < len(days):
        raise MarqueeError(f"the demo takes 1 to {len(days) - 1} days of updates, not {count}", field="days")
    updates = [dict(day) for day in days[:count]]
    if not any(day["new_brands"] for day in updates):
        raise MarqueeError(f"no brand appears on the first {count} days; take more of them", field="days")
    return updates, dict(days[count])


def predictions(url: str, rows: pa.Table) -> list[dict[str, Any]]:
    """The server's answer to each row, asked for one by one.

    Raises:
        MarqueeError: one was refused; the message says why.
    """
    answers = []
    with requests.Session() as session:
        for row in rows.to_pylist():
            body = {name: value for name, value in row.items() if name not in ("label", "timestamp", "event_id")}
            response = session.post(f"{url}/repair/predict", json=body, timeout=REQUEST_S)
            if response.status_code != 200:
                raise MarqueeError(f"{url}/repair/predict: {response.status_code}: {response.text[:500]}")
            answers.append(response.json())
    return answers


def compared(
    settings: Settings, release: Release, rows: pa.Table, answers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The answers against the release's own files, with the ids that hold online."""
    spec, form = release.spec(), row_form(release)
    with closing(open_users(settings)) as users:
        online = {
            feature.name: users.vocabularies.export(release.scene, feature.name)
            for feature in growing_features(release)
        }
    encoder = TextEncoder(release.path / TEXT)
    ready = ready_rows(spec, rows.select(list(raw_columns_of(spec))), known_ids(online), encoder.encode)
    model = open_model(
        release.file("model/model.onnx").read_bytes(),
        {"feature_spec_sha256": str(release.manifest["feature_spec_sha256"])},
    )
    expected = model.score(graph_inputs(spec, form.inputs, ready))[form.output]
    delta = np.abs(np.array([answer["score"] for answer in answers]) - expected)
    whole = all(answer["release"] == release.id and not answer["degraded"] for answer in answers)
    return {
        "ok": bool(whole and delta.max() <= TOLERANCE),
        "requests": len(answers),
        "max_abs_delta": float(delta.max()),
    }


def one_day(settings: Settings, url: str, day: Mapping[str, Any]) -> dict[str, Any]:
    """The daily job of a day, and the release that the server answers from afterwards."""
    done = run_program(DAILY, ["--date", day["date"]], settings, JOB_S)
    wait_until_serving(url, done["release"])
    log.info("%s: %s %s", day["date"], done["outcome"], "; ".join(done["reasons"]))
    kept = {name: done[name] for name in ("date", "outcome", "release", "report")}
    return {
        **kept,
        "new_brands": day["new_brands"],
        "served": requests.get(f"{url}/readyz", timeout=REQUEST_S).json()["release"],
    }


def learned(rows: pa.Table, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the new brands' rows scored before training saw them, and after; labels are of a day that no training saw."""
    labels = rows["label"].to_numpy()
    scores = [np.array([answer["score"] for answer in answers], np.float64) for answers in (before, after)]
    ids = ids_of(rows, before)
    same = ids == ids_of(rows, after) and UNKNOWN not in ids.values() and len(set(ids.values())) == len(ids)
    auc_before, auc_after = (auc_of(labels, values) for values in scores)
    return {
        "ok": bool(same and np.abs(scores[0] - scores[1]).max() > TOLERANCE),
        "ids": ids,
        "rows": len(rows),
        "auc_before": auc_before,
        "auc_after": auc_after,
        "brands": {
            brand: {
                "taken": round(float(labels[mine].mean()), 4),
                "score_before": round(float(scores[0][mine].mean()), 4),
                "score_after": round(float(scores[1][mine].mean()), 4),
            }
            for brand in ids
            for mine in [np.array([one == brand for one in rows["car_brand"].to_pylist()])]
        },
    }


def ids_of(rows: pa.Table, answers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Brand -> the id that its answers name; UNKNOWN when they do not agree."""
    found: dict[str, set[int]] = {}
    for brand, answer in zip(rows["car_brand"].to_pylist(), answers, strict=True):
        found.setdefault(brand, set()).add(answer["matched_brand_id"])
    return {brand: ids.pop() if len(ids) == 1 else UNKNOWN for brand, ids in found.items()}


def show(rows: pa.Table, answers: Sequence[Mapping[str, Any]], count: int = 5) -> None:
    """Some predictions for a person."""
    for row, answer in zip(rows.slice(0, count).to_pylist(), answers, strict=False):
        log.info("  %.4f  shop %d  %s", answer["score"], row["shop_id"], row["text_raw"])
