"""Feature tables -> encoded training data of both fits: vocabularies and statistics from the fit's rows, crosses computed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import save_file

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import read_dataset_info
from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.tables import FEATURE_ROWS
from data_exchange_center.workspace import Workspace, atomic_path, read_table, write_json
from offline.models.trunk import Trunk
from offline.rank.encoder_fit import fit_encoder
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.fits import Fit, fits_of
from offline.rank.number_tables import (
    Lists,
    choose_lists,
    encode_lists,
    encode_rows,
    like_rows,
    list_values,
    lists_of,
    row_values,
    set_statistics,
)
from offline.recall.affinity import fit_affinity, training_scores
from offline.recall.candidates_for_ranking import recall_candidates
from offline.recall.cut_option import serving_cut
from offline.recall.known_rows import Events, load_known_rows
from offline.training.dataset import FIT, JUDGE, VALIDATE

MOST_LISTS = 6000  # of one cut: more lists teach little and cost memory (about 60 kB each)
ROWS_FILE, NORMALISATION_FILE = "like.safetensors", "normalisation.safetensors"


def lists_file(cut: str) -> str:
    """Name of the lists of a cut in a fit's folder."""
    return f"choose_{cut}.safetensors"


def engineer_features(settings: Settings) -> dict[str, Any]:
    """Fits affinity at every cut that needs it, then encodes rows and lists of the judged and the released fit.

    Returns:
        What was read and written per fit: rows, lists, vocabulary sizes, numbers, seconds.

    Raises:
        DataError: an earlier step has not run, or nobody chose anything new. SpecError: a declared feature cannot be built;
            it is named.
    """
    spec = load_spec(settings.features.spec)
    workspace = Workspace(settings)
    rows = FEATURE_ROWS.validate(read_table(workspace.features / "rows.parquet"))
    fits = fits_of(settings)
    cuts = sorted({cut for fit in fits for cut in fit.lists} | {serving_cut(settings)})
    for cut in cuts:
        fit_affinity_at(settings, cut)
    lists = {cut: _lists(settings, spec, cut) for cut in cuts if any(cut in fit.lists for fit in fits)}
    return {fit.name: _make(settings, spec, fit, rows, lists) for fit in fits}


def fit_affinity_at(settings: Settings, cut: str) -> None:
    """Fits affinity on the rows known at a cut, beside the cut's recall channels."""
    known = load_known_rows(settings, cut)
    affinity = fit_affinity(
        known.events, neighbours=settings.recall.neighbours, exact_items=settings.recall.exact_items
    )
    affinity.save(Workspace(settings).recall(cut))


def _lists(settings: Settings, spec: FeatureSpec, cut: str) -> Lists:
    workspace, known = Workspace(settings), load_known_rows(settings, cut)
    later = known.later.positives
    chosen = pa.table(
        {c.USER_ID: known.users[c.USER_ID].take(later.users), c.ITEM_ID: known.items[c.ITEM_ID].take(later.items)}
    )
    found = lists_of(
        recall_candidates(settings, cut, settings.serve.prerank_size),
        chosen,
        read_table(workspace.snapshot(cut) / "users.parquet"),
        read_table(workspace.snapshot(cut) / "items.parquet"),
        spec,
        MOST_LISTS,
        settings.seed,
    )
    if not len(found.candidates):
        raise DataError(
            f"dataset {settings.dataset_name}: after the cut {cut!r} no user chose an item that was new to them, so there is no "
            "order to learn; bring a longer log, more items, or users who do not only come back to what they know"
        )
    return found


def _make(
    settings: Settings, spec: FeatureSpec, fit: Fit, rows: pa.Table, lists: Mapping[str, Lists]
) -> dict[str, Any]:
    started = time.perf_counter()
    rows = rows.filter(pc.is_in(rows[c.SPLIT], value_set=pa.array(fit.splits)))
    parts = _parts(fit, rows)
    learned = pa.array(parts != JUDGE)
    scores = affinity_scores(settings, fit.learns, fit.history, rows)
    encoder = _encoder(
        spec,
        rows.filter(learned),
        {name: array[parts != JUDGE] for name, array in scores.items()},
        [lists[cut] for cut in fit.lists],
    )
    trunk = Trunk(spec, encoder.rows)
    inputs = encode_rows(encoder, rows, scores)
    values = row_values(trunk, inputs)
    encoded = {cut: encode_lists(encoder, lists[cut]) for cut in fit.lists}
    of_lists = {cut: list_values(trunk, *encoded[cut], torch.from_numpy(lists[cut].candidates)) for cut in fit.lists}
    in_fit = torch.from_numpy(parts != JUDGE)
    set_statistics(
        trunk,
        {name: tensor[in_fit] for name, tensor in values.items()},
        [(of_lists[cut], torch.from_numpy(lists[cut].candidates)) for cut in fit.lists],
    )
    folder = fit.folder(settings)
    encoder.save(folder)
    labels, users = labels_and_users(rows)
    like_rows(trunk, inputs, values, labels, users, torch.from_numpy(parts)).save(folder / ROWS_FILE)
    for cut in fit.lists:
        user, item, _ = encoded[cut]
        choose_lists(trunk, user, item, of_lists[cut], lists[cut]).save(folder / lists_file(cut))
    with atomic_path(folder / NORMALISATION_FILE) as temporary:
        save_file({"means": trunk.means, "deviations": trunk.deviations}, temporary)
    summary = {
        "rows": {
            name: int((parts == part).sum()) for name, part in (("fit", FIT), ("validate", VALIDATE), ("judge", JUDGE))
        },
        "lists": {cut: len(lists[cut].candidates) for cut in fit.lists},
        "embedding_rows": encoder.rows,
        "numbers": {head: len(trunk.number_columns(head)) for head in ("like", "choose")},
        "has_like": read_dataset_info(Workspace(settings)).labels != "positives_only",
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_json(folder / "engineering.json", summary)
    return {**summary, "written": str(folder)}


def labels_and_users(rows: pa.Table) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [rows] labels and int64 [rows] numbers of the users, from 0 in their order."""
    users = pc.dictionary_encode(rows[c.USER_ID]).combine_chunks().indices.to_numpy().astype(np.int64)
    return torch.from_numpy(rows[c.LABEL].to_numpy().astype(np.float32)), torch.from_numpy(users)


def _parts(fit: Fit, rows: pa.Table) -> np.ndarray:
    """[rows] uint8: what a fit does with each row. Epochs are chosen on the last part of each user's train rows."""
    split = rows[c.SPLIT].to_numpy(zero_copy_only=False)
    if fit.name == "released":
        return np.full(len(rows), FIT, np.uint8)
    early = rows["early"].to_numpy(zero_copy_only=False).astype(bool)
    return np.where(split != c.TRAIN, JUDGE, np.where(early, FIT, VALIDATE)).astype(np.uint8)


def affinity_scores(settings: Settings, learned: str, history: str, rows: pa.Table) -> dict[str, np.ndarray]:
    """Affinity of exposed rows as of their moment: name -> float32 [rows].

    Args:
        learned: cut whose rows similarities come from; rows of it are scored out of fold.
        history: cut whose rows the users' earlier events come from.
        rows: user_id, item_id, label, timestamp.
    """
    learns, known = load_known_rows(settings, learned), load_known_rows(settings, history).events
    user = pc.index_in(rows[c.USER_ID], value_set=learns.users[c.USER_ID].combine_chunks()).to_numpy().astype(np.int64)
    item = pc.index_in(rows[c.ITEM_ID], value_set=learns.items[c.ITEM_ID].combine_chunks()).to_numpy().astype(np.int64)
    labels = rows[c.LABEL].to_numpy().astype(np.int8)
    queries = Events(
        user,
        item,
        labels,
        labels.astype(np.float32),  # never read: a row is scored from the values before it
        rows[c.TIMESTAMP].to_numpy(),
        known.user_count,
        known.item_count,
    )
    return training_scores(
        learns.events,
        known,
        queries,
        neighbours=settings.recall.neighbours,
        exact_items=settings.recall.exact_items,
        seed=settings.seed,
    )


def _encoder(spec: FeatureSpec, rows: pa.Table, scores: Mapping[str, np.ndarray], lists: list[Lists]) -> FittedEncoder:
    columns = {name: rows[name] for name in rows.column_names}
    extra = {
        feature.name: scores[feature.name]
        if feature.name in scores
        else np.concatenate([part.scores[feature.name][part.candidates >= 0] for part in lists])
        for feature in spec.of("candidate")
    }
    return fit_encoder(spec, columns, extra)


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return engineer_features(settings)


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    run_step("rank/s1_feature_engi", parser(__doc__ or ""), _step, argv)


if __name__ == "__main__":
    main()
