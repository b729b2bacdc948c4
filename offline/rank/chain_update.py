"""A chain's ranker learns one day (or some) on top of another run: its network goes on, on the day's rows and lists and on replay.

    like      the day's exposed rows, and rows that earlier runs learned from: REPLAYED for each new one
    choose    the lists that the other run's recall would have handed over, with what users chose on the day, and earlier lists;
              of a log of impressions also what users were shown, with what they took of it: who saw an item and left it says more
              than who was never shown it, and a choice among what was shown owes nothing to what the system preferred to show

Ids never change and statistics stay, so rows and lists that an earlier run has encoded are replayed as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import SHOWN, read_dataset_info
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import Workspace, read_table, write_json
from offline.models.ranker import Ranker
from offline.models.trunk import Trunk
from offline.rank.encoder_fit import EncoderFit
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.fits import Fit, fits_of
from offline.rank.fitting import FitData, Plan, learn, places_of
from offline.rank.grown_ranker import grown_ranker, restored_optimizers, save_optimizers, with_new_tokens
from offline.rank.number_tables import (
    choose_lists,
    encode_lists,
    encode_rows,
    like_rows,
    list_values,
    lists_of,
    row_values,
)
from offline.rank.s1_feature_engi import MOST_LISTS, ROWS_FILE, labels_and_users, lists_file
from offline.rank.s3_evaluate import EVALUATION_FILE
from offline.recall.candidates_for_ranking import RANK, recall_candidates, recall_scores_for
from offline.training.dataset import FIT, ChooseLists, LikeRows

REPLAYED = 4  # earlier rows for each new one
REPLAYED_LISTS = 128  # earlier lists at least; more where the day has more
KEPT_ROWS, KEPT_GROUPS = 100_000, 7  # that the next run may replay; groups of each kind
KINDS = ("day", "shown")  # of the lists that a day brings
UPDATE_FILE = "update.json"


def update_ranker(run: Settings, start: Settings, cut: str, rows: pa.Table, epochs: int, rate: float) -> dict[str, Any]:
    """Trains the released fit of a run on top of another run's, and writes it as `train_model` does.

    Args:
        run, start: settings of both workspaces. cut: that both are served from; recall is fitted in both.
        rows: of the days to learn: features, scores of affinity and labels.
        epochs: over rows and lists. rate: of the settings' learning rate.

    Returns:
        Rows, replayed rows, lists, new tokens by feature.
    """
    spec = load_spec(run.features.spec)
    there, here = (released_fit(one).folder(one) for one in (start, run))
    before = Ranker.load(there)
    known = FittedEncoder.load(there, spec)
    encoder = with_new_tokens(known, _tokens_seen(run, spec, known.id_types))
    ranker = grown_ranker(before, encoder)
    slower = run.with_values(**{"rank.learning_rate": run.rank.learning_rate * rate, "rank.epochs": epochs})
    optimizers = restored_optimizers(there, before, ranker, slower.rank)
    new = encoded_rows(ranker, encoder, rows)
    old = LikeRows.load(there / ROWS_FILE)
    generator = torch.Generator().manual_seed(run.seed + len(old.labels))
    replayed = old.take(torch.randperm(len(old.labels), generator=generator)[: REPLAYED * len(new.labels)])
    groups = _groups(there)
    trunk = ranker.member(0).trunk
    made_lists = {
        "day": _lists_of_day(trunk, encoder, start, cut, rows),
        "shown": _shown_lists(trunk, encoder, start, cut, rows) if run.incremental.shown_lists else None,
    }
    fresh = {kind: lists for kind, lists in made_lists.items() if lists is not None}
    count = sum(map(len, fresh.values()))
    places = places_of(groups)
    places = places[torch.randperm(len(places), generator=generator)[: max(REPLAYED_LISTS, REPLAYED * count)]]
    replayed_lists = len(places)
    for lists in fresh.values():
        groups.append(lists)
        places = torch.cat([places, places_of([lists]) + torch.tensor([len(groups) - 1, 0])])
    data = FitData(new.joined(replayed), tuple(groups), trunk.means, trunk.deviations, ranker.config)
    learn(slower, ranker, data, Plan(epochs, epochs, {}), places, optimizers)
    ranker.save(here)
    encoder.save(here)
    save_optimizers(here, optimizers)
    kept = old.take(torch.randperm(len(old.labels), generator=generator)[: max(KEPT_ROWS - len(new.labels), 0)])
    new.joined(kept).save(here / ROWS_FILE)
    _hand_on(there, here, fresh)
    made = {
        "rows": len(new.labels),
        "replayed": len(replayed.labels),
        "lists": len(fresh.get("day", ())),
        "shown_lists": len(fresh.get("shown", ())),
        "replayed_lists": replayed_lists,
        "new_tokens": {
            name: len(vocabulary.tokens) - len(known.vocabularies[name].tokens)
            for name, vocabulary in encoder.vocabularies.items()
        },
    }
    write_json(Workspace(run).rank / UPDATE_FILE, made)
    write_json(
        Workspace(run).rank / EVALUATION_FILE,
        {"rank": {}, "rows": made, "reason": "the daily job judges this run against the one before; see its report"},
    )
    return made


def released_fit(settings: Settings) -> Fit:
    """The fit that is exported."""
    return fits_of(settings)[1]


def encoded_rows(ranker: Ranker, encoder: FittedEncoder, rows: pa.Table, part: int = FIT) -> LikeRows:
    """Rows of features and scores of affinity as the loop takes them."""
    scores = {f.name: rows[f.name].to_numpy() for f in encoder.spec.of("candidate") if f.name in rows.column_names}
    trunk = ranker.member(0).trunk
    inputs = encode_rows(encoder, rows, scores)
    labels, users = labels_and_users(rows)
    parts = torch.full((len(rows),), part, dtype=torch.uint8)
    return like_rows(trunk, inputs, row_values(trunk, inputs), labels, users, parts)


def _tokens_seen(run: Settings, spec: FeatureSpec, id_types: tuple[str, str]) -> Mapping[str, Vocabulary]:
    """The vocabularies that a new fit on the whole log would learn."""
    workspace = Workspace(run)
    events = read_table(workspace.split / "interactions.parquet", [c.USER_ID, c.ITEM_ID])
    fit = EncoderFit(spec, id_types)
    columns: dict[str, pa.ChunkedArray] = {}
    for name, key in (("users", c.USER_ID), ("items", c.ITEM_ID)):
        attributes = read_table(workspace.tables / f"{name}.parquet")
        place = pc.index_in(events[key], value_set=attributes[key].combine_chunks())
        wanted = [owner for owner in fit.owners if owner in attributes.column_names]
        columns |= {owner: attributes[owner].take(place) for owner in wanted}
    fit.see_tokens(columns, np.arange(len(events)))
    return fit.vocabularies()


def _lists_of_day(
    trunk: Trunk, encoder: FittedEncoder, start: Settings, cut: str, rows: pa.Table
) -> ChooseLists | None:
    """What the other run's recall would have handed over to the users of the day; None when none of it was chosen."""
    users, items, rows = _known_there(start, cut, rows)
    chosen = rows.filter(pc.equal(rows[c.LABEL], 1)).select([c.USER_ID, c.ITEM_ID])
    if not len(chosen):
        return None
    asked = pc.unique(chosen[c.USER_ID])
    candidates = recall_candidates(start, cut, start.serve.prerank_size, asked)
    return _encoded_lists(trunk, encoder, start, candidates, chosen, users, items)


def _shown_lists(trunk: Trunk, encoder: FittedEncoder, start: Settings, cut: str, rows: pa.Table) -> ChooseLists | None:
    """What each user was shown on the day, with what was taken of it; None where the log does not say, or nothing was taken."""
    if read_dataset_info(Workspace(start)).labels not in SHOWN:
        return None
    users, items, rows = _known_there(start, cut, rows)
    shown = rows.group_by([c.USER_ID, c.ITEM_ID], use_threads=False).aggregate([(c.LABEL, "max")])
    chosen = shown.filter(pc.equal(shown[f"{c.LABEL}_max"], 1)).select([c.USER_ID, c.ITEM_ID])
    if not len(chosen):
        return None
    candidates = recall_scores_for(start, cut, shown.select([c.USER_ID, c.ITEM_ID]))
    candidates = candidates.append_column(RANK, pa.array(np.arange(len(candidates), dtype=np.int32)))
    return _encoded_lists(trunk, encoder, start, candidates, chosen, users, items)


def _known_there(start: Settings, cut: str, rows: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The other run's snapshots of users and items, and the rows whose both it knows."""
    folder = Workspace(start).snapshot(cut)
    users, items = (read_table(folder / f"{name}.parquet") for name in ("users", "items"))
    for key, known in ((c.USER_ID, users), (c.ITEM_ID, items)):
        rows = rows.filter(pc.is_in(rows[key], value_set=known[key].combine_chunks()))
    return users, items, rows


def _encoded_lists(
    trunk: Trunk,
    encoder: FittedEncoder,
    start: Settings,
    candidates: pa.Table,
    chosen: pa.Table,
    users: pa.Table,
    items: pa.Table,
) -> ChooseLists | None:
    lists = lists_of(candidates, chosen, users, items, encoder.spec, MOST_LISTS, start.seed)
    if not len(lists.candidates):
        return None
    user, item, candidate = encode_lists(encoder, lists)
    values = list_values(trunk, user, item, candidate, torch.from_numpy(lists.candidates))
    return choose_lists(trunk, user, item, values, lists)


def _group_files(folder: Path) -> list[list[Path]]:
    """The lists that a run has kept: of the first fit's newest cut, then of each kind by days, oldest first."""
    first = [path for path in [folder / lists_file("train")] if path.exists()]
    return [first, *(sorted(folder.glob(lists_file(f"{kind}_*"))) for kind in KINDS)]


def _groups(folder: Path) -> list[ChooseLists]:
    return [ChooseLists.load(path) for files in _group_files(folder) for path in files]


def _hand_on(there: Path, here: Path, fresh: Mapping[str, ChooseLists]) -> None:
    """Keeps lists and what else the next run needs of the one before."""
    first, *days = _group_files(there)
    for path in [*first, *(path for files in days for path in files[-(KEPT_GROUPS - 2) :])]:
        shutil.copyfile(path, here / path.name)
    shutil.copyfile(there / "engineering.json", here / "engineering.json")
    for kind, files in zip(KINDS, days, strict=True):
        if kind in fresh:
            last = max((int(path.stem.rpartition("_")[2]) for path in files), default=0)
            fresh[kind].save(here / lists_file(f"{kind}_{last + 1:06d}"))
