"""The row reader: record batches of exactly the asked size from files of any format.

The order of the rows is a function of (files, shuffle_rows, seed, epoch) alone; threads do not change it. A rank reads one
contiguous share of it, equal to the others' to the row. With shuffling, the pieces of the files (row groups, stripes, stretches of
text) come in a random order, and within each window of `shuffle_rows` rows, one after the other, so do the rows.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from pydantic import Field, TypeAdapter, ValidationError

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.rows.faults import Faults
from data_exchange_center.rows.schema import RowSchema
from offline.reading.files import Chunk, RowFile, open_files
from offline.reading.prefetch import in_order

STATE_VERSION = 1
Place = Annotated[int, Field(ge=0)]


@runtime_checkable
class RowSource(Protocol):
    """What training reads rows from: `RowReader`, or anything of one's own that behaves like it.

    Attributes:
        schema: of the batches.
        epoch: which order the next iteration takes.
        skipped: malformed rows that were left out so far.
    """

    schema: RowSchema
    epoch: int
    skipped: int

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """From the restored position, once, or from the beginning."""
        ...

    def state(self) -> dict[str, Any]:
        """The position behind the last batch that was handed out, as JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """The next iteration goes on there."""
        ...


@dataclass(frozen=True)
class Share:
    """Rows of one piece that a rank reads: from `first` to `stop` (None: the piece's end)."""

    file: int
    piece: int
    first: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Position:
    """Where reading goes on; all numbers count from 0.

    Attributes:
        share: number of the share.
        row: place in its piece of the first row to look at.
        used: sound rows from there on that have been handed out (or, with shuffling, are in windows before).
        window: number of the shuffling window that begins there.
        taken: rows of that window that have been handed out.
        skipped: malformed rows before `row`.
    """

    share: Place = 0
    row: Place = 0
    used: Place = 0
    window: Place = 0
    taken: Place = 0
    skipped: Place = 0


class RowReader:
    """Reads rows; iterate it for one epoch.

    Args:
        paths: files, folders or patterns.
        schema: of the rows with their label; files without one give batches without one.
        batch_size: rows of a batch; only the last one is shorter.
        format: auto, tsv, slot, parquet or orc.
        rank, world_size: which share of the rows to read.
        shuffle_rows: rows that are shuffled at once; 0 keeps the files' order.
        seed, epoch: of the order.
        drop_remainder: leave out what fills no whole batch; every rank then yields equally many batches.
        on_error: what a malformed row does: raise, or be skipped and counted.
        workers: threads that read and parse; 0 does it in the caller's.
        prefetch: pieces that are read ahead of those the workers are at.
        columns: names of the features wanted; None: all. The label always comes.

    Attributes:
        schema: of the batches: as declared, without the label when the files have none.
        skipped: malformed rows left out so far. faults: the same with the first few of them.

    Raises:
        DataUnavailable, DataError: files that are not there or cannot be read. SettingsError: arguments out of range.
    """

    def __init__(
        self,
        paths: str | Path | Iterable[str | Path],
        schema: RowSchema,
        *,
        batch_size: int,
        format: str = "auto",
        rank: int = 0,
        world_size: int = 1,
        shuffle_rows: int = 0,
        seed: int = 0,
        epoch: int = 0,
        drop_remainder: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        workers: int = 2,
        prefetch: int = 4,
        columns: Iterable[str] | None = None,
    ) -> None:
        _check(batch_size >= 1, "batch_size", "at least 1")
        _check(world_size >= 1, "world_size", "at least 1")
        _check(0 <= rank < world_size, "rank", f"from 0 to {world_size - 1}")
        _check(
            min(shuffle_rows, seed, epoch, workers, prefetch) >= 0,
            "shuffle_rows, seed, epoch, workers, prefetch",
            "0 or more",
        )
        _check(on_error in ("raise", "skip"), "on_error", "raise or skip")
        wanted = schema if columns is None else schema.select(columns)
        self._files, found = open_files(paths, schema, format)
        self.schema = wanted if found.label or not wanted.label else wanted.unlabelled
        self.batch_size, self.epoch, self.faults = batch_size, epoch, Faults()
        self._rank, self._world_size = rank, world_size
        self._shuffle_rows, self._seed = shuffle_rows, seed
        self._drop_remainder, self._skip = drop_remainder, on_error == "skip"
        self._workers, self._prefetch = workers, prefetch
        self._position, self._restored = Position(), False

    @property
    def skipped(self) -> int:
        """Malformed rows that were left out before the current position."""
        return self.faults.count

    @cached_property
    def _piece_rows(self) -> list[list[int]]:
        """Rows of every file's pieces: told by a columnar file, counted in a text."""
        places = [(file, piece) for file in self._files for piece in range(file.pieces)]
        with ThreadPoolExecutor(max(self._workers, 1)) as pool:
            counts = iter(list(pool.map(lambda place: place[0].rows(place[1]), places)))
        return [[next(counts) for _ in range(file.pieces)] for file in self._files]

    @property
    def rows(self) -> int:
        """Rows of this rank's share, malformed ones counted. Texts are counted line by line when it is first asked."""
        first, stop = self._bounds()
        return stop - first

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        start = self._position if self._restored else Position()
        self._restored, self._position = False, start
        self.faults = Faults(count=start.skipped)
        return self._batches(start)

    def state(self) -> dict[str, Any]:
        """The position behind the last batch that was handed out, as JSON; it holds for any batch size."""
        return {"version": STATE_VERSION, "of": self._identity(), "position": asdict(self._position)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The next iteration goes on where the state was taken, in its epoch.

        Raises:
            DataError: the state is of other files or another order; the message says what differs.
        """
        of, version = state.get("of"), state.get("version")
        if version != STATE_VERSION or not isinstance(of, Mapping) or not isinstance(of.get("epoch"), int):
            raise DataError("the reader's state is not one of this version; start the epoch anew")
        mine = {**self._identity(), "epoch": of["epoch"]}
        for name, value in mine.items():
            if of.get(name) != value:
                raise DataError(
                    f"the reader's state is of other rows: {name} was {of.get(name)!r}, is {value!r}", field=name
                )
        try:
            self._position = TypeAdapter(Position).validate_python(state.get("position"))
        except ValidationError as error:
            raise DataError(
                f"the reader's state is broken: {error.errors()[0]['msg']}; start the epoch anew"
            ) from error
        self.epoch, self._restored = of["epoch"], True
        self.faults = Faults(count=self._position.skipped)

    def _identity(self) -> dict[str, Any]:
        """What the order of the rows depends on."""
        files = [(file.path.name, file.path.stat().st_size) for file in self._files]
        return {
            "files": hashlib.sha256(repr(files).encode()).hexdigest()[:16],
            "rank": self._rank,
            "world_size": self._world_size,
            "shuffle_rows": self._shuffle_rows,
            "seed": self._seed,
            "epoch": self.epoch,
            "drop_remainder": self._drop_remainder,
            "skip": self._skip,
        }

    def _bounds(self) -> tuple[int, int]:
        """First and last row + 1 of the rank's share in the order of all."""
        total = sum(map(sum, self._piece_rows))
        if self._drop_remainder:
            each = total // self._world_size
            return self._rank * each, (self._rank + 1) * each
        return total * self._rank // self._world_size, total * (self._rank + 1) // self._world_size

    def _shares(self) -> list[Share]:
        """What this rank reads in this epoch, in order."""
        pieces = [Share(number, piece) for number, file in enumerate(self._files) for piece in range(file.pieces)]
        if self._shuffle_rows:
            order = np.random.default_rng([self._seed, self.epoch]).permutation(len(pieces))
            pieces = [pieces[place] for place in order]
        if self._world_size == 1:
            return pieces
        first, stop = self._bounds()
        shares, place = [], 0
        for share in pieces:
            rows = self._piece_rows[share.file][share.piece]
            begin, end = max(first - place, 0), min(stop - place, rows)
            if begin < end:
                shares.append(replace(share, first=begin, stop=end))
            place += rows
        return shares

    def _batches(self, start: Position) -> Iterator[pa.RecordBatch]:
        stream = _Stream(self, self._shares(), start)
        try:
            yield from self._shuffled(stream, start) if self._shuffle_rows else self._plain(stream)
        finally:
            stream.close()

    def _plain(self, stream: _Stream) -> Iterator[pa.RecordBatch]:
        while len(batch := stream.take(self.batch_size)):
            if len(batch) < self.batch_size and self._drop_remainder:
                return
            self._position = stream.position()
            yield batch

    def _shuffled(self, stream: _Stream, start: Position) -> Iterator[pa.RecordBatch]:
        number, taken = start.window, start.taken
        left: pa.RecordBatch | None = None  # rows that the windows before did not fill a batch with
        while len(window := stream.take(self._shuffle_rows)):
            random = np.random.default_rng([self._seed, self.epoch, number, self._rank])
            order = random.permutation(len(window))
            while taken < len(window):
                wanted = self.batch_size - (len(left) if left else 0)
                rows = window.take(pa.array(order[taken : taken + wanted]))
                batch = pa.concat_batches([left, rows]) if left else rows
                taken += len(rows)
                left = None if len(batch) == self.batch_size else batch
                if left is None:
                    self._position = replace(stream.before, window=number, taken=taken)
                    yield batch
            number, taken = number + 1, 0
        if left and not self._drop_remainder:
            self._position = replace(stream.position(), window=number)
            yield left


class _Stream:
    """The sound rows of a rank's shares, taken in any number; knows the position of the next one.

    `before`: the position that the last `take` began at.
    """

    def __init__(self, reader: RowReader, shares: list[Share], start: Position) -> None:
        self._reader = reader
        self._start = start
        self.before = start
        tasks = [
            _task(reader, share, start.row if number == 0 else 0) for number, share in enumerate(shares[start.share :])
        ]
        self._chunks = in_order(tasks, workers=reader._workers, ahead=reader._prefetch)
        self._drop = start.used  # sound rows still to be passed over
        self._current: pa.RecordBatch = reader.schema.empty()
        self._place = 0  # of the next row in it
        self._position = replace(start, window=0, taken=0)
        self._used = start.used

    def position(self) -> Position:
        """Of the next row."""
        return replace(self._position, used=self._used)

    def take(self, rows: int) -> pa.RecordBatch:
        """The next rows, as one batch; fewer at the end."""
        self.before = self.position()
        parts, missing = [], rows
        while missing:
            if self._place == len(self._current) and not self._advance():
                break
            part = self._current.slice(self._place, missing)
            self._place += len(part)
            self._used += len(part)
            missing -= len(part)
            parts.append(part)
        if not parts:
            return self._reader.schema.empty()
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)

    def close(self) -> None:
        """Ends the threads."""
        self._chunks.close()  # type: ignore[attr-defined]

    def _advance(self) -> bool:
        """Goes on to the next chunk that has rows."""
        for number, chunk in self._chunks:
            self._enter(number + self._start.share, chunk)
            passed = min(self._drop, len(chunk.batch))
            self._drop -= passed
            self._current, self._place = chunk.batch, passed
            if passed < len(chunk.batch):
                return True
        return False

    def _enter(self, share: int, chunk: Chunk) -> None:
        faults = self._reader.faults
        if not self._drop:
            self._position = replace(self._position, share=share, row=chunk.first, skipped=faults.count)
            self._used = 0
        for fault in chunk.faults.first:
            faults.add(fault)
        faults.count += chunk.faults.count - len(chunk.faults.first)


def _task(reader: RowReader, share: Share, row: int) -> Callable[[], Iterator[Chunk]]:
    file: RowFile = reader._files[share.file]
    first = max(share.first, row)
    return lambda: file.chunks(share.piece, first, share.stop, reader.schema, skip=reader._skip)


def _check(holds: bool, name: str, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"row reader: {name} must be {wanted}", field=name)


def source_at(import_path: str) -> Callable[..., RowSource]:
    """A reader of one's own by its import path.

    Args:
        import_path: `package.module:function`; the function takes the arguments of `RowReader` and gives a `RowSource`.

    Raises:
        SettingsError: nothing callable there.
    """
    module, _, name = import_path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name) if module and name else None
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"reader {import_path!r}: {error}; expected package.module:function") from error
    if not callable(found):
        raise SettingsError(f"reader {import_path!r}: is no function; expected package.module:function")
    return found
