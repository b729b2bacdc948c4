"""Puts the fitted channels of a cut together: `recall.json` and the user profiles that the user store will hold.

Each channel's step leaves its arrays in `recall/<cut>/` and what else it knows in `recall/<cut>/parts/`; a release gets the
arrays, the parts stay behind.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.candidates import CHANNELS, DEFAULT_WEIGHTS
from data_exchange_center.errors import DataError
from data_exchange_center.recall_parts import Sparse, VectorArrays
from data_exchange_center.recall_scores import RecallArrays
from data_exchange_center.settings import Settings
from data_exchange_center.tables import USER_PROFILES
from data_exchange_center.workspace import (
    Workspace,
    read_array,
    read_json,
    read_table,
    write_array,
    write_json,
    write_table,
)
from offline.recall.known_rows import NEXT_CUT, KnownRows
from offline.recall.popularity import PopularityChannel
from offline.recall.terms import TermChannel, preferred

PROFILES = "user_profiles.parquet"
_PREVIOUS = {later: earlier for earlier, later in NEXT_CUT.items()}


def save_terms(folder: Path, channel: TermChannel, users: pa.Table) -> None:
    """Writes the term channel."""
    channel.strength.save(folder, "term")
    terms, weights = preferred(channel)
    table = pa.table(
        {
            c.USER_ID: users[c.USER_ID],
            "terms": pa.array(terms, pa.list_(pa.string())),
            "term_weights": pa.array(weights, pa.list_(pa.float32())),
        }
    )
    write_table(folder / "parts" / "preferences.parquet", table)
    write_json(folder / "parts" / "terms.json", {"terms": list(channel.terms)})


def save_popularity(folder: Path, channel: PopularityChannel, users: pa.Table) -> None:
    """Writes the popularity channel."""
    write_array(folder / "popularity.npy", channel.scores)
    segments = pa.table({c.USER_ID: users[c.USER_ID], "segment": pa.array(channel.of_user, pa.string())})
    write_table(folder / "parts" / "segments.parquet", segments)
    described = {
        "segments": list(channel.segments),
        "half_life": channel.half_life,
        "attributes": list(channel.attributes),
    }
    write_json(folder / "parts" / "popularity.json", described)


def assemble(settings: Settings, known: KnownRows) -> tuple[RecallArrays, pa.Table]:
    """Writes `recall.json` and the profiles from what the channels' steps left, and returns both.

    Raises:
        DataError: a channel was not fitted at this cut yet, or was fitted on another catalog; the message names the file.
    """
    workspace = Workspace(settings)
    folder = workspace.recall(known.cut)
    arrays = RecallArrays(
        vectors=VectorArrays.load(folder),
        similar=Sparse.load(folder, "item"),
        strength=Sparse.load(folder, "term"),
        popularity=read_array(folder / "popularity.npy", mmap=True),
        terms=tuple(read_json(folder / "parts" / "terms.json")["terms"]),
        segments=tuple(read_json(folder / "parts" / "popularity.json")["segments"]),
        history=known.weights,
        weights=merge_weights(workspace, known.cut),
    )
    arrays.check(folder)
    if arrays.item_count != known.items.num_rows or len(arrays.vectors.user_vectors) != known.users.num_rows:
        raise DataError(f"{folder}: fitted for another catalog or other users; run the recall steps at this cut again")
    profiles = user_profiles(
        known, read_table(folder / "parts" / "preferences.parquet"), read_table(folder / "parts" / "segments.parquet")
    )
    write_table(folder / PROFILES, profiles)
    arrays.describe(folder)
    return arrays, profiles


def merge_weights(workspace: Workspace, cut: str) -> dict[str, float]:
    """Weights of the merge rule: learned at the cut before, whose labels are known rows of this one; else the defaults."""
    learned = workspace.recall(_PREVIOUS[cut]) / "parts" / "merge.json" if cut in _PREVIOUS else None
    if learned is None or not learned.exists():
        return dict(DEFAULT_WEIGHTS)
    found = read_json(learned)["weights"]
    return {channel: float(found[channel]) for channel in CHANNELS}


def user_profiles(known: KnownRows, preferences: pa.Table, segments: pa.Table) -> pa.Table:
    """One row per user of the users table (tables.USER_PROFILES)."""
    events = known.events
    offsets = pa.array(events.starts.astype(np.int32))
    last = np.zeros(events.user_count, np.int64)
    active = np.diff(events.starts) > 0
    last[active] = events.timestamps[events.starts[1:][active] - 1]
    return USER_PROFILES.validate(
        pa.table(
            {
                c.USER_ID: known.users[c.USER_ID],
                "segment": segments["segment"],
                "last_timestamp": last,
                "terms": preferences["terms"],
                "term_weights": preferences["term_weights"],
                "history": pa.ListArray.from_arrays(offsets, events.items.astype(np.int32)),
                "history_labels": pa.ListArray.from_arrays(offsets, events.labels),
                "history_timestamps": pa.ListArray.from_arrays(offsets, events.timestamps),
                "history_values": pa.ListArray.from_arrays(offsets, events.values),
            }
        )
    )
