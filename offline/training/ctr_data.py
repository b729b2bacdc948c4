"""Rows of a click scene as training batches: fitted in a stream, encoded by the exported graph, kept for many epochs.

    fit_ctr_encoder   vocabularies, tables and statistics from the training rows
    EncodedRows       a reader's record batches -> LikeBatch after LikeBatch, resumable where the reader is
    CachedRows        the same rows encoded once into memory-mapped arrays, for many epochs and many models

A batch's ids are one matrix [B, F] and its numbers another [B, m]; both keep the order of `Columns`. Dense vectors lie behind the
numbers, element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data_exchange_center import columns as c
from data_exchange_center.derived_values import FOLD
from data_exchange_center.encoded_matrices import IDS, matrices
from data_exchange_center.encoder import ENCODED, LIMIT
from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.growing_features import raw_owners
from data_exchange_center.raw_columns import raw_column
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import folder_once, read_array, read_json, sha256, write_json
from offline.models.layers import Sides
from offline.models.numbers import Numbers
from offline.rank.encoder_fit import EncoderFit
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.stream_statistics import fold_of
from offline.training.dataset import LikeBatch
from offline.training.distributed import ALONE, Processes

POSITION = "row_position"  # int64 column by which a reader that shuffles says where a row stands in its files
ITEM_IDS = f"{IDS}.item"  # a batch's only input
FILES = ("ids.npy", "numbers.npy", "labels.npy")


class Rows(Protocol):
    """What EncodedRows asks of a reader; offline/reading/reader.py is one."""

    def __iter__(self) -> Iterator[pa.RecordBatch]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Columns:
    """Which columns the two matrices of a scene have, in the network's order.

    Attributes:
        ids: embedded features (encoded_matrices.IDS).
        numbers: numbers that the network reads.
        vectors: dense vectors that it reads, each with its length.
    """

    ids: tuple[str, ...]
    numbers: tuple[str, ...]
    vectors: tuple[tuple[str, int], ...] = ()

    @property
    def width(self) -> int:
        """Columns of the numbers' matrix."""
        return len(self.numbers) + sum(length for _, length in self.vectors)

    @classmethod
    def of(cls, spec: FeatureSpec) -> Columns:
        """The columns of a scene.

        Raises:
            SpecError: the scene is none of single rows: a feature is a list of ids, a cross, or of the user's side.
        """
        for feature in spec.features:
            of_ids = feature.is_list and feature.type != "dense_vector"
            if of_ids or feature.cross is not None or feature.entity != "candidate":
                raise SpecError(
                    f"scene {spec.scene}: feature {feature.name!r} is no single value and no vector of a candidate",
                    field=feature.name,
                )
        vectors = [feature for feature in spec.encoded if feature.type == "dense_vector"]
        ids = [matrix.features for matrix in matrices(spec, ()) if matrix.name == ITEM_IDS]
        numbers = tuple(Numbers(spec).columns("like", "item"))
        return cls(ids[0] if ids else (), numbers, tuple((feature.name, feature.length) for feature in vectors))

    def batch(self, ids: Tensor, numbers: Tensor, labels: Tensor) -> LikeBatch:
        """Matrices [B, F] and [B, width] as what the trunk takes; numbers are bounded as the exported graph bounds them."""
        inputs = {ITEM_IDS: ids.long()} if self.ids else {}
        start = len(self.numbers)
        for name, length in self.vectors:
            inputs[ENCODED + name] = numbers[:, start : start + length]
            start += length
        scalars = numbers[:, : len(self.numbers)].clamp(-LIMIT, LIMIT)
        return LikeBatch(inputs, Sides(torch.zeros(1, 0), scalars), labels)

    def nothing(self) -> LikeBatch:
        """A batch of no rows."""
        ids = torch.zeros(0, len(self.ids), dtype=torch.int64)
        return self.batch(ids, torch.zeros(0, self.width), torch.zeros(0))


def fit_ctr_encoder(
    spec: FeatureSpec,
    make_reader: Callable[[], Iterable[pa.RecordBatch]],
    known: Mapping[str, Vocabulary] | None = None,
) -> FittedEncoder:
    """Fits an encoder on all rows of a reader, which is made and read twice; memory grows with distinct tokens alone.

    Args:
        spec: its inputs are columns of the batches, beside `label` (0 or 1) where target features need it.
        make_reader: a fresh reader over the training rows, in the order of its files: a row's place decides its fold.
        known: vocabularies that are given, by the feature that owns them.

    Raises:
        SpecError, DataError: a declaration cannot be fitted to the rows; the feature is named.
    """
    fit = EncoderFit(spec, ("int64", "int64"), known)
    for batch, positions in _positioned(make_reader()):
        labels = batch[c.LABEL].to_numpy(zero_copy_only=False) if c.LABEL in batch.schema.names else None
        fit.see_tokens(_inputs(spec, batch), positions, labels)
    if fit.moments:
        for batch, positions in _positioned(make_reader()):
            fit.see_numbers(_inputs(spec, batch), positions)
    return fit.encoder()


def _positioned(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    start = 0
    for batch in batches:
        if POSITION in batch.schema.names:
            yield batch, batch[POSITION].to_numpy()
        else:
            yield batch, np.arange(start, start + batch.num_rows)
        start += batch.num_rows


def _inputs(spec: FeatureSpec, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    missing = [feature.name for feature in spec.inputs if feature.name not in batch.schema.names]
    if missing:
        raise DataError(f"the rows have no column for feature {missing[0]!r}", field=missing[0])
    return {feature.name: batch[feature.name] for feature in spec.inputs}


class EncodedRows:
    """Encodes what a reader hands out, batch by batch.

    Args:
        source: raw rows; see `Rows`.
        encoder: fitted.
        by_fold: the rows are those that the encoder was fitted on, from the first on: their target encodings are out of fold.
            Their places are counted, so the reader must keep the files' order or give a column `row_position`.
    """

    def __init__(self, source: Rows, encoder: FittedEncoder, *, by_fold: bool = False) -> None:
        self.source, self.encoder, self.by_fold = source, encoder, by_fold
        self.columns = Columns.of(encoder.spec)
        self._session = encoder.session(by_fold=by_fold)
        self._position = 0
        self.id_type = np.int64 if raw_owners(encoder.spec) else np.int32

    def __iter__(self) -> Iterator[LikeBatch]:
        for ids, numbers, labels in self.arrays():
            yield self.columns.batch(*(torch.from_numpy(array) for array in (ids, numbers, labels)))

    def arrays(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """ids int32 (raw ones int64) [B, F], numbers float32 [B, width], labels float32 [B] (NaN where the rows have none)."""
        for batch in self.source:
            start, self._position = self._position, self._position + batch.num_rows
            yield self.encode(batch, start)
        self._position = 0

    def encode(self, batch: pa.RecordBatch, start: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One record batch whose first row stands at `start`."""
        spec = self.encoder.spec
        raw = {
            name: raw_column(spec[name], spec.dtype_of(spec[name], *self.encoder.id_types), column)
            for name, column in _inputs(spec, batch).items()
        }
        if any(declared.name == FOLD for declared in self._session.get_inputs()):
            given = POSITION in batch.schema.names
            positions = batch[POSITION].to_numpy() if given else np.arange(start, start + batch.num_rows)
            raw[FOLD] = fold_of(positions, spec.folds)
        vectors = [name for name, _ in self.columns.vectors]
        wanted = [ENCODED + name for name in (*self.columns.ids, *self.columns.numbers, *vectors)]
        made = iter(self._session.run(wanted, raw))
        ids = np.empty((batch.num_rows, len(self.columns.ids)), self.id_type)
        numbers = np.empty((batch.num_rows, self.columns.width), np.float32)
        for place in range(ids.shape[1]):
            ids[:, place] = next(made)
        for place in range(len(self.columns.numbers)):
            numbers[:, place] = next(made)
        start = len(self.columns.numbers)
        for _, length in self.columns.vectors:
            numbers[:, start : start + length] = next(made)
            start += length
        if c.LABEL in batch.schema.names:
            labels = batch[c.LABEL].to_numpy(zero_copy_only=False).astype(np.float32)
        else:
            labels = np.full(batch.num_rows, np.nan, np.float32)
        return ids, numbers, labels

    def state(self) -> dict[str, Any]:
        """Where the next batch starts: the reader's state and the rows before it."""
        return {"source": self.source.state(), "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state.

        Raises:
            DataError: it is none.
        """
        if not isinstance(state.get("position"), int) or "source" not in state:
            raise DataError(f"not a position of encoded rows: {dict(state)!r}")
        self.source.restore(state["source"])
        self._position = state["position"]

    def cache(self, folder: Path) -> CachedRows:
        """Encodes every row once into `folder`, unless it is there already; see `CachedRows`."""
        return CachedRows(folder_once(folder, "rows.json", lambda made: _write(made, self)))


def _write(folder: Path, rows: EncodedRows) -> None:
    """Appends batch by batch, so that memory stays flat; the .npy headers are written when the number of rows is known."""
    names = FILES
    count = 0
    raw = [(folder / f"{name}.raw").open("wb") for name in names]
    try:
        for arrays in rows.arrays():
            for file, array in zip(raw, arrays, strict=True):
                array.tofile(file)
            count += len(arrays[0])
    finally:
        for file in raw:
            file.close()
    shapes = [(count, len(rows.columns.ids)), (count, rows.columns.width), (count,)]
    for name, shape, kind in zip(names, shapes, (rows.id_type, np.float32, np.float32), strict=True):
        appended = folder / f"{name}.raw"
        with (folder / name).open("wb") as target, appended.open("rb") as source:
            np.lib.format.write_array_header_1_0(
                target, {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
            )
            while chunk := source.read(1 << 22):
                target.write(chunk)
        appended.unlink()
    write_json(
        folder / "rows.json",
        {
            "rows": count,
            "ids": list(rows.columns.ids),
            "numbers": list(rows.columns.numbers),
            "vectors": dict(rows.columns.vectors),
            "sha256": {name: sha256(folder / name) for name in names},
        },
    )


class CachedRows:
    """Encoded rows on disk, memory-mapped: ids int32 (or int64) [R, F], numbers float32 [R, width], labels float32 [R].

    Args:
        folder: written by EncodedRows.cache.
        check: compare the checksums, which reads every byte once.

    Raises:
        DataError: a file is missing, or not what was written.
    """

    def __init__(self, folder: Path, *, check: bool = True) -> None:
        content = read_json(folder / "rows.json")
        for name, digest in content["sha256"].items() if check else ():
            if not (folder / name).exists() or sha256(folder / name) != digest:
                raise DataError(f"{folder / name}: missing, or not what was written; remove {folder} and encode again")
        vectors = tuple((name, int(length)) for name, length in content.get("vectors", {}).items())
        self.columns = Columns(tuple(content["ids"]), tuple(content["numbers"]), vectors)
        self.ids, self.numbers, self.labels = (
            torch.from_numpy(read_array(folder / name, mmap="private")) for name in FILES
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor | slice) -> LikeBatch:
        """Some rows: their places, or a slice."""
        taken = (
            part[rows] if isinstance(rows, slice) else part.index_select(0, rows)  # which copies whole rows
            for part in (self.ids, self.numbers, self.labels)
        )
        return self.columns.batch(*taken)

    def epoch(self, batch_size: int, seed: int, epoch: int, processes: Processes = ALONE) -> CachedEpoch:
        """All rows in the random order of that epoch, of which this process gets its part of each batch."""
        return CachedEpoch(self, batch_size, seed, epoch, processes)


class CachedEpoch:
    """One epoch over cached rows, in an order that seed and epoch decide; see BatchSource.

    Its position is one for all processes.
    """

    def __init__(self, rows: CachedRows, batch_size: int, seed: int, epoch: int, processes: Processes = ALONE) -> None:
        self.rows, self.batch_size, self.seed, self.epoch, self.done = rows, batch_size, seed, epoch, 0
        self.processes = processes

    def order(self) -> np.ndarray:
        """Places of the rows, int64 [R], in the order in which they come."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self.rows))

    def __iter__(self) -> Iterator[LikeBatch]:
        order = torch.from_numpy(self.order())
        while self.done < len(order):
            taken = order[self.done : self.done + self.batch_size]
            self.done += len(taken)
            yield self.rows.batch(taken[self.processes.part(len(taken))])

    def state(self) -> dict[str, Any]:
        """Rows done of this seed's epoch."""
        return {"seed": self.seed, "epoch": self.epoch, "rows": self.done}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on behind a state's rows.

        Raises:
            DataError: the state is of another order, or beyond the rows.
        """
        if (state.get("seed"), state.get("epoch")) != (self.seed, self.epoch):
            raise DataError(
                f"a position of seed {state.get('seed')}, epoch {state.get('epoch')}, not of {self.state()}"
            )
        done = state.get("rows")
        if not isinstance(done, int) or not 0 <= done <= len(self.rows):
            raise DataError(f"rows {done!r}: not a place among {len(self.rows)} rows")
        self.done = done
