"""The one door from a dataset's name, or one's own YAML, to the canonical tables in the workspace.

A dataset is two functions: one that reads it, and one that fingerprints what it would read. Tables are made again only when
the fingerprint changes: the raw files' content, or a setting that shapes the tables.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import DatasetInfo, info_path, read_dataset_info, write_dataset_info
from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.settings import Settings
from data_exchange_center.tables import INTERACTIONS, ITEMS, USERS
from data_exchange_center.workspace import Workspace, write_array, write_table
from offline.datasets.canonical import Dataset
from offline.datasets.fetch import ARCHIVES, fetch
from offline.datasets.movielens import movielens_fingerprint, read_movielens
from offline.datasets.own_log import own_log_fingerprint, read_own_log
from offline.datasets.synthetic import generate

log = logging.getLogger("marquee")
TABLES_VERSION = 2  # raise it when the same raw files give other tables


@dataclass(frozen=True)
class Opened:
    """A dataset that was found, not yet read.

    Attributes:
        source: where it comes from, for people.
        fingerprint: of the raw content, without the settings.
        read: reads it.
    """

    source: str
    fingerprint: str
    read: Callable[[], Dataset]


def load_dataset(settings: Settings, *, again: bool = False) -> DatasetInfo:
    """Makes the canonical tables of the chosen dataset in `workspace.tables`, unless they are there already.

    Args:
        settings: `data.dataset` names it; `data.source` points to a local copy.
        again: make them in any case.

    Returns:
        What `dataset.json` beside the tables says.

    Raises:
        DataUnavailable: neither found nor fetched; the message says what to do.
        DataError: the raw data does not parse or the tables break their schema.
        SettingsError: an unknown dataset.
    """
    workspace = Workspace(settings)
    opened = open_dataset(settings)
    fingerprint = _fingerprint(settings, opened)
    if not again and info_path(workspace).exists():
        known = _known(workspace)
        if known is not None and known.fingerprint == fingerprint:
            log.info("tables of %s are up to date in %s", workspace.dataset, workspace.tables)
            return known
    log.info("reading %s from %s", workspace.dataset, opened.source)
    dataset = opened.read()
    info = describe(workspace.dataset, opened.source, fingerprint, dataset)
    info_path(workspace).unlink(missing_ok=True)  # from here until the last line the folder is visibly unfinished
    write_table(workspace.tables / "users.parquet", USERS.validate(dataset.users))
    write_table(workspace.tables / "items.parquet", ITEMS.validate(dataset.items))
    write_table(workspace.tables / "interactions.parquet", INTERACTIONS.validate(dataset.interactions))
    for name, array in dataset.truth.items():
        write_array(workspace.tables / "truth" / f"{name}.npy", array)
    write_dataset_info(workspace, info)
    return info


def open_dataset(settings: Settings) -> Opened:
    """Finds the chosen dataset: one's own YAML, the generator, a local copy, what was fetched before, or a download."""
    name, source = settings.data.dataset, settings.data.source
    if name.endswith((".yaml", ".yml")):
        return _own_log(Path(name).expanduser().resolve(), source, settings.data.positive_above)
    if name == "synthetic":
        return _synthetic(settings)
    if name not in ARCHIVES:
        near = difflib.get_close_matches(name, [*ARCHIVES, "synthetic"], n=1)
        known = f"did you mean {near[0]}?" if near else f"known are {', '.join(ARCHIVES)}, synthetic, and YAML files"
        raise SettingsError(f"unknown dataset {name!r}; {known}", field="data.dataset")
    fetched = None if source else fetch(ARCHIVES[name], Workspace(settings).raw, settings.data.mirror)
    path = fetched or Path(source).expanduser().resolve()
    return Opened(
        source=str(path),
        fingerprint=movielens_fingerprint(path),
        read=lambda: read_movielens(path, settings.data.positive_above),
    )


def _own_log(path: Path, source: str, positive_above: float) -> Opened:
    base = Path(source).expanduser().resolve() if source else path.parent
    return Opened(
        source=str(path),
        fingerprint=own_log_fingerprint(path, base),
        read=lambda: read_own_log(path, base, positive_above),
    )


def _synthetic(settings: Settings) -> Opened:
    data = settings.data
    sizes = (data.synthetic_users, data.synthetic_items, data.synthetic_events, data.synthetic_seed)
    return Opened(
        source="synthetic: {} users, {} items, {} events, seed {}".format(*sizes),
        fingerprint=f"synthetic {sizes}",
        read=lambda: generate(*sizes, positive_above=data.positive_above),
    )


def describe(name: str, source: str, fingerprint: str, dataset: Dataset) -> DatasetInfo:
    """The `dataset.json` of a dataset."""
    events = dataset.interactions
    times = pc.min_max(events[c.TIMESTAMP]).as_py()
    return DatasetInfo.model_validate(
        {
            "name": name,
            "source": source,
            "fingerprint": fingerprint,
            "labels": dataset.labels,
            "users": dataset.users.num_rows,
            "items": dataset.items.num_rows,
            "interactions": events.num_rows,
            "positive_rate": round(pc.mean(events[c.LABEL]).as_py(), 6),
            "first_timestamp": times["min"],
            "last_timestamp": times["max"],
            "rows_read": dataset.rows_read,
            "dropped": dataset.rows_read - events.num_rows,
            "findings": dataset.findings,
            "user_id_type": str(events.schema.field(c.USER_ID).type),
            "item_id_type": str(events.schema.field(c.ITEM_ID).type),
            "user_attributes": [column for column in dataset.users.column_names if column != c.USER_ID],
            "item_attributes": [column for column in dataset.items.column_names if column != c.ITEM_ID],
            "has_user_attributes": dataset.users.num_columns > 1,
            "has_terms": c.TERMS in dataset.items.column_names
            and bool(pc.any(pc.greater(pc.list_value_length(dataset.items[c.TERMS]), 0)).as_py()),
            "truth": bool(dataset.truth),
        }
    )


def _fingerprint(settings: Settings, opened: Opened) -> str:
    parts = {"version": TABLES_VERSION, "raw": opened.fingerprint, "positive_above": settings.data.positive_above}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _known(workspace: Workspace) -> DatasetInfo | None:
    """The tables' description, or None when it, or a table, is broken or missing and everything must be made again."""
    try:
        info = read_dataset_info(workspace)
    except DataError as error:
        log.warning("%s; making the tables again", error.message)
        return None
    there = all((workspace.tables / f"{table}.parquet").exists() for table in ("users", "items", "interactions"))
    return info if there else None
