"""Packs one training run into an immutable, checksummed release: tables, recall arrays, vocabularies, model and report."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import SHOWN, read_dataset_info
from data_exchange_center.errors import ReleaseError
from data_exchange_center.feature_spec import spec_file
from data_exchange_center.release import new_release, open_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.tables import (
    ITEM_FEATURES,
    ITEM_STANDING,
    ITEMS,
    RECENT,
    USER_FEATURES,
    USER_PROFILES,
    USER_RECENT,
    USERS,
)
from data_exchange_center.workspace import Workspace, read_json, read_table, write_table
from offline.recall.cut_option import serving_cut
from offline.release.report import write_report

log = logging.getLogger("marquee")


def pack_release(
    settings: Settings, *, note: Mapping[str, Any] | None = None, into: Settings | None = None
) -> dict[str, Any]:
    """Writes `store/releases/<release>/` from what the stages before left in the workspace.

    Args:
        settings: of the workspace.
        note: more entries of the manifest.
        into: whose store takes the release, when the workspace has one of its own.

    Returns:
        release, its path, size, counts, an example user and the titles of items (for showing a list to a person).

    Raises:
        DataError: a stage's output is missing or does not hold what its schema promises.
    """
    workspace, cut = Workspace(settings), serving_cut(settings)
    tables = {
        "users": USERS.validate(read_table(workspace.tables / "users.parquet")),
        "items": ITEMS.validate(read_table(workspace.tables / "items.parquet")),
        "user_profiles": USER_PROFILES.validate(read_table(workspace.recall(cut) / "user_profiles.parquet")),
        "user_features": USER_FEATURES.validate(read_table(workspace.snapshot(cut) / "users.parquet")),
        "item_features": ITEM_FEATURES.validate(read_table(workspace.snapshot(cut) / "items.parquet")),
    }
    if read_dataset_info(workspace).labels not in SHOWN:  # whose features count what was shown, not what was chosen
        folder = workspace.snapshot(cut)
        tables["user_profiles"] = with_recent(tables["user_profiles"], read_table(folder / "user_recent.parquet"))
        tables["item_standing"] = ITEM_STANDING.validate(read_table(folder / "item_standing.parquet"))
    recall = read_json(workspace.recall(cut) / "evaluation.json")
    ranking = read_json(workspace.rank / "evaluation.json")
    exported = read_json(workspace.rank / "export" / "export.json")
    manifest = {
        "cut": cut,
        "holdout": settings.split.holdout,
        "data_window": data_window(workspace, cut),
        "rows": ranking["rows"],
        "parity": exported["parity"],
        "packed_inputs": exported["packed_inputs"],
        "metrics": {"rank": ranking["rank"], "recall": recall},
        **(note or {}),
    }
    into = into or settings
    with new_release(into, manifest) as (release, folder):
        for name, table in tables.items():
            write_table(folder / "tables" / f"{name}.parquet", table)
        shutil.copyfile(spec_file(settings.features.spec), folder / "feature_spec.yaml")
        copy_files(workspace.recall(cut), folder / "recall", leave_out={"user_profiles.parquet", "evaluation.json"})
        export = workspace.rank / "export"
        copy_files(export / "vocab_map", folder / "vocab_map")
        copy_files(export, folder / "model", leave_out={"export.json"})
        write_report(folder / "report", title=release, manifest=manifest, ranking=ranking, recall=recall)
    packed = open_release(Workspace(into).releases / release)
    log.info("  release %s: %d files", release, len(packed.manifest["files"]))
    return {
        "release": release,
        "path": str(packed.path),
        "mib": round(sum(file["bytes"] for file in packed.manifest["files"].values()) / 2**20, 2),
        "files": len(packed.manifest["files"]),
        "cut": cut,
        "users": tables["users"].num_rows,
        "items": tables["items"].num_rows,
        "interactions": manifest["data_window"]["interactions"],
        "example_user": tables["user_profiles"][c.USER_ID][0].as_py(),
    }


def with_recent(profiles: pa.Table, recent: pa.Table) -> pa.Table:
    """Profiles with what each user's newest events were judged against (tables.USER_RECENT); empty lists for who has no event."""
    USER_RECENT.validate(recent)
    found = recent.take(pc.index_in(profiles[c.USER_ID], value_set=recent[c.USER_ID].combine_chunks()))
    for name in RECENT:
        lists = found[name].combine_chunks()
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int32)
        offsets = pa.array(np.append(np.int32(0), np.cumsum(lengths, dtype=np.int32)))
        profiles = profiles.append_column(name, pa.ListArray.from_arrays(offsets, pc.list_flatten(lists)))
    return USER_PROFILES.validate(profiles)


def data_window(workspace: Workspace, cut: str) -> dict[str, Any]:
    """First and last timestamp (unix seconds) and number of the rows that the release knows."""
    rows = read_table(workspace.split / "interactions.parquet", [c.TIMESTAMP, c.SPLIT])
    known = rows if cut == "all" else rows.filter(pc.not_equal(rows[c.SPLIT], c.ONLINE))
    if not known.num_rows:
        raise ReleaseError(f"{workspace.split}: no rows are known at the cut {cut!r}; there is nothing to release")
    first_last: pa.StructScalar = pc.min_max(known[c.TIMESTAMP])
    return {"first": first_last["min"].as_py(), "last": first_last["max"].as_py(), "interactions": known.num_rows}


def copy_files(source: Path, target: Path, leave_out: set[str] | None = None) -> None:
    """Copies a folder's own files (not its sub-folders), links followed, hidden ones left."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.name not in (leave_out or set()):
            shutil.copyfile(file, target / file.name)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    run_step("s1_pack_release", parser(__doc__ or ""), lambda settings, _: pack_release(settings), argv)


if __name__ == "__main__":
    main()
