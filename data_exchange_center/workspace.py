"""Where artifacts lie, and how they get there: every write goes to a temporary name and is renamed when it is whole.

store/raw/<dataset>/                                     what was downloaded or generated
store/offline/<dataset>/tables/                          canonical tables: users, items, interactions
store/offline/<dataset>/<protocol>-<holdout>/split/      interactions with their split
                                             .../features/rows.parquet, features/<cut>/{users,items}.parquet
                                             .../seed-<n>/recall/<cut>/, rank/, report/
store/releases/<release>/                                immutable, checksummed releases
store/online/                                            state of the embedded stores, the pointer's copy on disk
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_exchange_center.errors import DataError
from data_exchange_center.settings import Settings

CUTS = ("early", "train", "offline", "all")
"""What is known at each cut: the first 80 % of each user's train rows; train; train and test; every row."""


class Workspace:
    """Paths of one run of the settings. Nothing is created before something is written."""

    def __init__(self, settings: Settings) -> None:
        self.root = Path(settings.data.store).resolve()
        self.dataset = settings.dataset_name
        self.raw = self.root / "raw" / self.dataset
        self.offline = self.root / "offline" / self.dataset
        self.tables = self.offline / "tables"
        self.days = self.offline / "days"
        self.incremental = self.offline / "incremental"
        self.run = self.offline / f"{settings.split.protocol}-{settings.split.holdout}"
        self.split = self.run / "split"
        self.features = self.run / "features"
        self.seed = self.run / f"seed-{settings.seed}"
        self.rank = self.seed / "rank"
        self.report = self.seed / "report"
        self.releases = self.root / "releases"
        self.online = self.root / "online"

    def snapshot(self, cut: str) -> Path:
        """Folder of the serving snapshot (`users.parquet`, `items.parquet`) as of a cut."""
        return self.features / _known(cut)

    def recall(self, cut: str) -> Path:
        """Folder of the recall channels fitted at a cut."""
        return self.seed / "recall" / _known(cut)


def _known(cut: str) -> str:
    if cut not in CUTS:
        raise DataError(f"unknown cut {cut!r}; cuts are {', '.join(CUTS)}")
    return cut


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path`; renames it over `path` when the block ends well, removes it otherwise.

    The data reaches the disk before the name does, so that a crash leaves the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary sibling folder; renames it to `path` when the block ends well. `path` must not exist."""
    if path.exists():
        raise DataError(f"{path}: exists already and is never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def folder_once(path: Path, known_by: str, make: Callable[[Path], object]) -> Path:
    """Makes a folder unless it is there. Several processes may want the same one at once: the first to end has made it.

    Args:
        path: of the folder.
        known_by: the file in it that says it is there.
        make: writes the content into the empty folder that it is given; the same content in every process.
    """
    if (path / known_by).exists():
        return path
    try:
        with atomic_folder(path) as temporary:
            make(temporary)
    except (OSError, DataError):
        if not (path / known_by).exists():  # else another process ended first
            raise
    return path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON (UTF-8, sorted as given, NaN refused) atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads a JSON file; a missing or broken one is an error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: not there; run the step that writes it first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically, with microsecond timestamps (Feast reads no finer ones)."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", coerce_timestamps="us", allow_truncated_timestamps=True)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads a Parquet file; a missing or broken one is an error that names it."""
    if not path.exists():
        raise DataError(f"{path}: not there; run the step that writes it first")
    try:
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one `.npy` atomically; object arrays are refused."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def read_array(path: Path, *, mmap: bool | Literal["private"] = False) -> np.ndarray:
    """Reads one `.npy`, memory-mapped when asked: read-only, or `private`, where a write stays in this process; never unpickles."""
    if not path.exists():
        raise DataError(f"{path}: not there; run the step that writes it first")
    mode: Literal["c", "r"] | None = "c" if mmap == "private" else "r" if mmap else None
    try:
        # a plain array over the same memory: slicing np.memmap itself costs ten times as much
        return np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable .npy array: {error}") from error


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
