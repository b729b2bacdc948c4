"""The rows of a run: read as its settings say, encoded by what was fitted on its training rows.

    prepared/encoder-<digest>/    vocabularies, tables and statistics of some training rows
             rows-<digest>/       encoded rows, where data.cache is on

A digest is of the files (name, size, time of change), the feature spec and how rows are read: what other data or features made is
never taken for one's own. Runs that name the same folder in data.prepared share what they have in common.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.feature_selection import selected
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.growing_features import with_policy
from data_exchange_center.rows.schema import schema_of
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import sha256
from offline.rank.feature_encoding import FittedEncoder
from offline.reading.reader import RowSource, source_at
from offline.training.batches import BatchSource, Epochs
from offline.training.config import Part, TrainConfig, digest
from offline.training.ctr_data import CachedRows, EncodedRows, fit_ctr_encoder
from offline.training.dataset import LikeBatch
from offline.training.distributed import ALONE, Processes
from offline.training.shares import OwnBatches, SharedBatches

log = logging.getLogger("marquee")

BUILT_IN = "offline.reading.reader:RowReader"
READ_ROWS = 16_384  # at a time, to fit, to encode and to group


class RawRows:
    """Reads the raw rows of a run.

    Args:
        config: of the run.
        spec: the whole scene's features, which say what columns the files have.
        growing: owners of vocabularies that grow: their ids are to be encoded as they are, which training asks for.
    """

    def __init__(self, config: TrainConfig, spec: FeatureSpec, growing: Collection[str] = ()) -> None:
        self.data = config.data
        features = config.features
        used = selected(spec, features.select, features.embedding, features.min_frequency, features.quantiles)
        self.spec = with_policy(used, growing, "raw")
        self._schema = schema_of(spec)
        self._make = source_at(self.data.reader or BUILT_IN)

    def part(self, part: Part, batch_size: int, *, extra: Sequence[str] = (), **order: Any) -> RowSource:
        """Rows of a part; see `read`.

        Raises:
            DataError: the settings name no files of that part.
        """
        paths = self.data.paths(part)
        if not paths:
            raise DataError(f"data.{part} names no files", field=f"data.{part}")
        return self.read(paths, batch_size, extra=extra, **order)

    def read(
        self, paths: Sequence[Path], batch_size: int, *, format: str = "", extra: Sequence[str] = (), **order: Any
    ) -> RowSource:
        """Rows of any files, with the columns that the features need.

        Args:
            format: the settings' one when empty.
            extra: further columns.
            order: shuffle_rows, seed and epoch of a shuffled epoch; without, the order of the files. rank and world_size of
                a process that reads a share.
        """
        wanted = dict.fromkeys([feature.name for feature in self.spec.inputs] + list(extra))
        return self._make(
            paths,
            self._schema,
            batch_size=batch_size,
            format=format or self.data.format,
            on_error=self.data.on_error,
            workers=self.data.workers,
            prefetch=self.data.prefetch,
            columns=list(wanted),
            **order,
        )

    def files(self, part: Part) -> str:
        """Files and folders of a part, for a message."""
        return ", ".join(str(path) for path in self.data.paths(part))

    def gives_shares(self) -> bool:
        """Whether the reader gives a process rows of its own: one that does names `rank` and `world_size` among its arguments."""
        return {"rank", "world_size"} <= set(inspect.signature(self._make).parameters)

    def key(self, part: Part) -> list[Any]:
        """What the rows of a part depend on."""
        found: list[Any] = [self.data.format, self.data.reader, self.data.on_error]
        for path in self.data.paths(part):
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            for file in files:
                known = file.stat() if file.exists() else None
                found.append([str(file.absolute()), known and known.st_size, known and known.st_mtime_ns])
        return found


def fitted_encoder(rows: RawRows, prepared: Path, known: Mapping[str, Vocabulary] | None = None) -> Path:
    """Folder of the encoder fitted on the training rows; fitted when it is not there.

    Args:
        known: vocabularies that are given, by the feature that owns them.

    Raises:
        DataError: there is no training row.
    """
    given = {name: list(vocabulary.tokens) for name, vocabulary in (known or {}).items()}
    key = [rows.spec.model_dump(mode="json"), rows.key("train"), *([given] if given else [])]
    folder = prepared / f"encoder-{digest(key)}"
    if not (folder / "encoder.json").exists():
        with tqdm(desc="fit the encoder", unit=" rows", unit_scale=True, leave=False) as bar:
            fit_ctr_encoder(rows.spec, lambda: _training_rows(rows, bar), known).save(folder)
    return folder


def _training_rows(rows: RawRows, bar: Any) -> Iterator[pa.RecordBatch]:
    count = 0
    for batch in rows.part("train", READ_ROWS):
        count += batch.num_rows
        bar.update(batch.num_rows)
        yield batch
    if not count:
        raise DataError(f"{rows.files('train')}: there is no row to learn from", field="data.train")


class EncodedParts:
    """The encoded rows of a run.

    Args:
        config: of the run.
        rows: its raw ones.
        encoder: folder of the fitted encoder.
        prepared: where encoded rows are kept.
    """

    def __init__(self, config: TrainConfig, rows: RawRows, encoder: Path, prepared: Path) -> None:
        self.config, self.rows, self.prepared = config, rows, prepared
        self.encoder = FittedEncoder.load(encoder, rows.spec)
        self._encoder_sha256 = sha256(encoder / "encoder.json")
        self._cached: dict[Part, CachedRows] = {}
        self._groups: dict[tuple[Part, str], np.ndarray] = {}

    def epochs(self, processes: Processes = ALONE) -> Epochs:
        """Training batches: all rows in a random order for each epoch, or streamed through a shuffle buffer.

        Of several processes each gets its part of every batch. From a stream it reads only its own share of the files where the
        reader can give that, all get equally many rows of a batch, and no target encoding needs to know the rows before them.

        Raises:
            SettingsError: a stream is to be shuffled whose target encodings depend on the rows' places.
        """
        training, data = self.config.training, self.config.data
        if data.cache:
            rows = self.cached("train")
            return lambda epoch: rows.epoch(training.batch_size, training.seed, epoch, processes)
        targets = any(feature.derive and feature.derive.op == "target" for feature in self.rows.spec.derived)
        by_place = targets and self._by_fold("train")
        if data.shuffle_rows and by_place:
            raise SettingsError(
                "target encodings need each training row's place in its file: use data.cache=true or data.shuffle_rows=0",
                field="data.shuffle_rows",
            )

        each, left = divmod(training.batch_size, processes.count)
        own = processes.count > 1 and not left and not by_place and self.rows.gives_shares()

        def streamed(epoch: int) -> BatchSource:
            order = {"shuffle_rows": data.shuffle_rows, "seed": training.seed, "epoch": epoch}
            if own:
                share = {"rank": processes.rank, "world_size": processes.count}
                rows = self.encoded("train", each, **order, **share)
                return OwnBatches(rows, processes, rows.columns.nothing)
            rows = self.encoded("train", training.batch_size, **order)
            return rows if processes.count == 1 else SharedBatches(rows, processes)

        return streamed

    def train_rows(self) -> int:
        """Training rows of one epoch; 0 when a reader of one's own cannot tell."""
        if self.config.data.cache:
            return len(self.cached("train"))
        return int(getattr(self.rows.part("train", READ_ROWS), "rows", 0))

    def batches(self, part: Part) -> Iterator[LikeBatch]:
        """Rows of a part in the order of the files, in batches for inference."""
        size = self.config.inference.batch_size
        if not self.config.data.cache:
            yield from self.encoded(part, size)
            return
        rows = self.cached(part)
        for start in range(0, len(rows), size):
            yield rows.batch(slice(start, start + size))

    def encoded(self, part: Part, batch_size: int, **order: Any) -> EncodedRows:
        """A part, encoded as it is read."""
        return EncodedRows(self.rows.part(part, batch_size, **order), self.encoder, by_fold=self._by_fold(part))

    def cached(self, part: Part) -> CachedRows:
        """A part's encoded rows on disk; made when they are not there.

        Raises:
            DataError: there are none.
        """
        if part not in self._cached:
            key = digest([self._encoder_sha256, self.rows.key(part), self._by_fold(part)])
            folder = self.prepared / f"rows-{key}"
            there = folder.exists()  # then its rows need no encoder, which takes a while to load
            self._cached[part] = CachedRows(folder) if there else self._cache(part, folder)
        if not len(self._cached[part]):
            raise DataError(f"{self.rows.files(part)}: there is no row", field=f"data.{part}")
        return self._cached[part]

    def _cache(self, part: Part, folder: Path) -> CachedRows:
        source = self.rows.part(part, READ_ROWS)
        made = EncodedRows(source, self.encoder, by_fold=self._by_fold(part)).cache(folder)
        if source.skipped:
            log.warning("  %s: %d malformed rows were left out of %d", part, source.skipped, len(made) + source.skipped)
        return made

    def groups(self, part: Part, column: str) -> np.ndarray:
        """int64 [rows]: equal numbers for equal values of a raw column, in the order of the files."""
        if (part, column) not in self._groups:
            batches = self.rows.part(part, READ_ROWS, extra=[column])
            values = pa.chunked_array([batch[column] for batch in batches]).combine_chunks()
            indices = values.dictionary_encode(null_encoding="encode").indices
            self._groups[part, column] = np.asarray(indices).astype(np.int64)
        return self._groups[part, column]

    def _by_fold(self, part: Part) -> bool:
        """Whether these rows made the encoder's tables: what those say of a row must then leave the row out."""
        return part == "train" and not self.config.training.warm_start
