"""Item features packed for loading at once: 256 rows to a value, as Arrow IPC streams, and the snapshot made of them.

One value a row costs a feature store as much to read as 256 rows do, so the whole catalog comes in `items / 256` reads.
Each shard says how many shards and items there are, when they were loaded, and so proves that a snapshot is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import StoreError
from online.stores.ports import FeatureRows, Id
from online.stores.stored_features import Layout, StoredFeature, numpy_column

SHARD_ROWS = 256
KEY, AS_OF = "key", "as_of"  # names inside of a shard; a feature can have any other
ITEMS, LOADED = b"items", b"loaded"


def pack(
    features: Sequence[StoredFeature], keys: pa.Array, as_of: pa.Array, columns: dict[str, pa.Array], loaded: int
) -> list[bytes]:
    """The rows as shards, in order.

    Args:
        keys: item ids. as_of: int64, unix seconds. columns: feature -> stored column.
        loaded: unix seconds; the same in all shards of one load.
    """
    names = [KEY, AS_OF, *(f"f_{feature.name}" for feature in features)]
    arrays = [keys, as_of, *(columns[feature.name] for feature in features)]
    table = pa.table(dict(zip(names, arrays, strict=True)))
    table = table.replace_schema_metadata({ITEMS: str(table.num_rows), LOADED: str(loaded)})
    shards = []
    for start in range(0, max(table.num_rows, 1), SHARD_ROWS):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, SHARD_ROWS))
        shards.append(sink.getvalue().to_pybytes())
    return shards


def shard_count(first: bytes) -> int:
    """How many shards there are, as the first one says."""
    return max(1, -(-int(_metadata(_opened(first), ITEMS)) // SHARD_ROWS))


class Places:
    """Where each key lies in a list of keys; hundreds are asked for at once.

    Args:
        keys: all int or all str, each once.
    """

    def __init__(self, keys: Sequence[Id]) -> None:
        self._places: dict[Id, int] = {key: place for place, key in enumerate(keys)}
        numbers = np.array([key for key in keys if isinstance(key, int)], np.int64)
        self._order = np.argsort(numbers)
        self._sorted = numbers[self._order]

    def of(self, wanted: Sequence[Id] | np.ndarray) -> np.ndarray:
        """intp, aligned; the number of keys for one that is not there."""
        count = len(self._places)
        if isinstance(wanted, np.ndarray) and wanted.dtype == np.int64 and len(self._sorted):
            found = np.minimum(np.searchsorted(self._sorted, wanted), count - 1)
            return np.where(self._sorted[found] == wanted, self._order[found], count)
        asked = wanted.tolist() if isinstance(wanted, np.ndarray) else wanted
        return np.array([self._places.get(key, count) for key in asked], np.intp)


@dataclass(frozen=True)
class Snapshot:
    """All item features of a release, in memory.

    Attributes:
        places: id -> row.
        layout: of the features in `matrices`.
        matrices: dtype -> [items + 1, width]; the last row holds the defaults, for absent items.
        timestamps: int64 [items + 1], 0 in the last row.
    """

    places: Places = field(repr=False)
    layout: Layout = field(repr=False)
    matrices: dict[str, np.ndarray] = field(repr=False)
    timestamps: np.ndarray = field(repr=False)

    def gather(self, item_ids: Sequence[Id] | np.ndarray) -> FeatureRows:
        """The features of these items in the order asked."""
        places = self.places.of(item_ids)
        taken = {dtype: matrix.take(places, axis=0) for dtype, matrix in self.matrices.items()}
        return self.layout.rows(taken, self.timestamps.take(places))


def unpack(features: Sequence[StoredFeature], shards: Sequence[bytes]) -> Snapshot:
    """The snapshot that these shards make.

    Raises:
        StoreError: a shard is not readable, of another load than the others, or items are missing.
    """
    tables = [_opened(shard) for shard in shards]
    for table in tables[1:]:
        if table.schema.metadata != tables[0].schema.metadata:
            raise StoreError(
                "item features: shards of two loads; one is being written, or a load was cut off: load again"
            )
    whole = pa.concat_tables(tables)
    promised = int(_metadata(tables[0], ITEMS))
    keys = whole[KEY].to_pylist()
    distinct = len(set(keys))
    if distinct != promised or len(keys) != promised:
        raise StoreError(f"item features: {distinct} items in the shards, {promised} promised: load them again")
    columns = {}
    for feature in features:
        name = f"f_{feature.name}"
        if name not in whole.column_names:
            raise StoreError(f"item features: the shards lack {feature.name!r}: load them again", field=feature.name)
        columns[feature.name] = np.concatenate((numpy_column(feature, whole[name]), feature.defaults(1)))
    timestamps = np.append(whole[AS_OF].to_numpy(), 0).astype(np.int64)
    layout = Layout(features)
    return Snapshot(Places(keys), layout, layout.matrices(columns), timestamps)


def _opened(shard: bytes) -> pa.Table:
    try:
        return pa.ipc.open_stream(shard).read_all()
    except pa.ArrowInvalid as error:
        raise StoreError(
            f"item features: a shard of {len(shard)} bytes is not readable: {error}; load them again"
        ) from error


def _metadata(table: pa.Table, key: bytes) -> str:
    metadata = table.schema.metadata or {}
    if key not in metadata:
        raise StoreError(f"item features: a shard lacks {key.decode()!r}: load them again")
    return str(metadata[key].decode())
