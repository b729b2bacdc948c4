"""The users of a release as the user store takes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import ReleaseError
from data_exchange_center.release import Release
from data_exchange_center.tables import RECENT
from data_exchange_center.workspace import read_array
from online.stores.ports import NOTHING, UserProfile


def user_vectors(release: Release) -> np.ndarray:
    """float32 [users, D], row = place in the users table."""
    return read_array(release.file("recall/user_vectors.npy"), mmap=True)


def profiles(release: Release, chosen: np.ndarray | None = None) -> Iterator[UserProfile]:
    """Every user's profile, in the order of the release's users table.

    Args:
        chosen: rows of the users wanted; all of them when None.

    Raises:
        ReleaseError: profiles, users and vectors of the release do not belong together.
    """
    table, vectors = release.table("user_profiles"), user_vectors(release)
    users = release.table("users", [c.USER_ID])
    if table.num_rows != users.num_rows or not table[c.USER_ID].equals(users[c.USER_ID]):
        raise ReleaseError(f"release {release.id}: user_profiles.parquet and users.parquet list different users")
    if len(vectors) != users.num_rows:
        raise ReleaseError(f"release {release.id}: {len(vectors)} user vectors for {users.num_rows} users")
    if chosen is not None:
        table, vectors = table.take(pa.array(chosen)), vectors[chosen]
    values = "history_values" if "history_values" in table.column_names else "history_labels"
    columns = zip(
        table[c.USER_ID].to_pylist(),
        table["segment"].to_pylist(),
        table["last_timestamp"].to_pylist(),
        table["terms"].to_pylist(),
        arrays(table["term_weights"], np.float32),
        vectors,
        arrays(table["history"], np.int32),
        arrays(table["history_labels"], np.int8),
        arrays(table["history_timestamps"], np.int64),
        arrays(table[values], np.float32),
        *(
            arrays(table[name], np.int32) if name in table.column_names else repeat(NOTHING, table.num_rows)
            for name in RECENT
        ),
        strict=True,
    )
    for user_id, segment, last, terms, *rest in columns:
        yield UserProfile(user_id, segment, last, tuple(terms), *rest)


def arrays(column: pa.ChunkedArray, dtype: Any) -> Iterator[np.ndarray]:
    """A list column as one array per row, views of one buffer."""
    lists = column.combine_chunks()
    flat = lists.values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    for start, end in pairwise(lists.offsets.to_numpy()):
        yield flat[start:end]


def differing_field(expected: UserProfile, found: UserProfile | None) -> str | None:
    """The name of the first field in which a stored profile differs, every bit compared; None when none does."""
    if found is None:
        return "user_id"
    for name, value in vars(expected).items():
        stored = getattr(found, name)
        same = np.array_equal(value, stored) if isinstance(value, np.ndarray) else value == stored
        if not same:
            return name
    return None


def sample_rows(count: int, size: int, seed: int) -> np.ndarray:
    """At most `size` random rows of `count`, ascending; the same for the same seed."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:size])
