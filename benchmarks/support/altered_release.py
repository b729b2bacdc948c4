"""A copy of a release under the same id with something wrong in it: what a store that went astray would hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
from onnx import numpy_helper

from data_exchange_center.release import MANIFEST, Release, open_release
from data_exchange_center.workspace import read_json, read_table, sha256, write_array, write_json, write_table

Change = Callable[[Path], None]
LARGEST_WEIGHT = 1e6


def altered_copy(release: Release, releases: Path, change: Change) -> Release:
    """Copies a release into another store's releases folder, changes the copy, and signs it as whole.

    Args:
        change: gets the copy's folder.
    """
    folder = releases / release.id
    shutil.copytree(release.path, folder)
    change(folder)
    manifest = read_json(folder / MANIFEST)
    for name, entry in manifest["files"].items():
        entry |= {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    write_json(folder / MANIFEST, manifest)
    return open_release(folder)


def with_column(
    table_name: str, column: str, values: Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]
) -> Change:
    """Replaces one column of `tables/<table_name>.parquet`; the type stays."""

    def change(folder: Path) -> None:
        path = folder / "tables" / f"{table_name}.parquet"
        table = read_table(path)
        place, kind = table.schema.get_field_index(column), table.schema.field(column).type
        made = pc.cast(values(table[column]), kind)
        if made.to_pylist() == table[column].to_pylist():
            raise ValueError(f"{column} of {table_name} is what it was: nothing would be injected")
        write_table(path, table.set_column(place, column, made))

    return change


def with_vectors(change_vectors: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Replaces the item vectors."""

    def change(folder: Path) -> None:
        path = folder / "recall" / "item_vectors.npy"
        write_array(path, np.ascontiguousarray(change_vectors(np.load(path, allow_pickle=False))))

    return change


def with_vocabulary_shifted(folder: Path) -> None:
    """Every token of the model's largest vocabulary gets the entry of the token before it."""
    path = folder / "model" / "model.onnx"
    model = onnx.load(str(path))
    encoders = [node for node in model.graph.node if node.op_type == "LabelEncoder"]
    attributes = [
        attribute for node in encoders for attribute in node.attribute if attribute.name.startswith("values_")
    ]
    largest = max(attributes, key=lambda attribute: max(len(attribute.ints), len(attribute.floats)))
    entries = largest.ints if largest.ints else largest.floats
    shifted = [entries[-1], *entries[:-1]]
    del entries[:]
    entries.extend(shifted)
    onnx.save(model, str(path))


def with_other_weights(folder: Path, seed: int = 1) -> None:
    """Every weight of the model's layers and tables moves by some per cent, as after another training run."""
    path = folder / "model" / "model.onnx"
    model = onnx.load(str(path))
    generator = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            # a huge number is a bound of the encoding: moved, it would let infinities in
            share = np.where(np.abs(values) < LARGEST_WEIGHT, 0.05 * generator.standard_normal(values.shape), 0.0)
            moved = (values * (1 + share)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(moved, np.float32), tensor.name))
    onnx.save(model, str(path))
