"""Checks that online vocabularies, a release's vocabularies and its model's embedding tables are one.

For each growing feature of the release: every token of its vocab_map has the same id online; ids given out online have no gap,
none twice and none above the capacity; the model's table has a row for each of them; and the model treats ids that nobody has
yet, and ids beyond the table, as it treats UNK.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

import numpy as np

from data_exchange_center.errors import StoreError
from data_exchange_center.feature_spec import Feature
from data_exchange_center.release import Release, find_release
from data_exchange_center.scored_rows import row_form, sample_inputs
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.vocabulary import FIRST, UNKNOWN, Vocabulary
from data_exchange_center.workspace import read_json
from offline_to_online.rank.growing_vocabularies import disagreements, growing_features, offline_vocabulary
from online.stores.onnx_scorer import open_model
from online.stores.open import open_users
from online.stores.vocabulary_store import VocabularyStore


def check_vocabularies(settings: Settings, release_id: str = "") -> dict[str, Any]:
    """The whole check of one release (the newest by default).

    Returns:
        ok, release and per feature: capacity, tokens offline and online, rows of the model's table, `differences`.
    """
    release = find_release(settings, release_id)
    found: dict[str, Any] = {}
    with closing(open_users(settings)) as users:
        for feature in growing_features(release):
            found[feature.name] = check_feature(release, feature, users.vocabularies)
    return {
        "ok": not any(entry["differences"] for entry in found.values()),
        "release": release.id,
        "features": found,
    }


def check_feature(release: Release, feature: Feature, store: VocabularyStore) -> dict[str, Any]:
    """One feature's three sides; `differences` says in words what does not agree."""
    offline = offline_vocabulary(release, feature.name)
    differences: list[str] = []
    online = Vocabulary(feature.name, (), offline.capacity)
    try:
        online = store.export(release.scene, feature.name)
    except StoreError as error:  # absent, a gap, or an id twice
        differences.append(error.message)
    differences += [
        f"token {token!r}: id {here} offline, {there} online" for token, here, there in disagreements(offline, online)
    ]
    if len(online.tokens) > online.capacity:
        differences.append(f"{len(online.tokens)} ids given out online, the capacity is {online.capacity}")
    rows = int(read_json(release.file("model/network.json"))["rows"][feature.name])
    if online.size > rows:
        differences.append(f"ids up to {online.size - 1} may be given out online, the model's table has {rows} rows")
    differences += unknown_alike(release, feature, offline, rows)
    return {
        "capacity": offline.capacity,
        "offline": len(offline.ids),
        "online": len(online.ids),
        "rows": rows,
        "differences": differences,
    }


def unknown_alike(release: Release, feature: Feature, offline: Vocabulary, rows: int) -> list[str]:
    """Whether ids that the model has learned nothing of score as UNK does, on the release's sample rows."""
    model = open_model(
        release.file("model/model.onnx").read_bytes(),
        {"feature_spec_sha256": str(release.manifest["feature_spec_sha256"])},
    )
    form, inputs = row_form(release), sample_inputs(release)
    name = form.inputs[feature.name]

    def scores(number: int) -> np.ndarray:
        return model.score({**inputs, name: np.full_like(inputs[name], number)})[form.output]

    unseen, expected = {rows, -1, 2**40}, scores(UNKNOWN)
    if len(offline.tokens) < offline.capacity:
        unseen |= {FIRST + len(offline.tokens), rows - 1}
    return [
        f"id {number}, which nobody has, scores otherwise than UNK"
        for number in sorted(unseen)
        if np.abs(scores(number) - expected).max(initial=0) > 0
    ]


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.add_argument("--release", default="", help="a release's id (default: the newest)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return check_vocabularies(settings, parsed.release)

    run_step("s5_check_vocabulary", arguments, step, argv)


if __name__ == "__main__":
    main()
