"""A dataset as its publisher ships it: a folder or a zip archive, with or without a folder around the files."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from data_exchange_center.errors import DataError, DataUnavailable
from data_exchange_center.workspace import sha256


@dataclass(frozen=True)
class RawFile:
    """One file of a dataset, in a folder or inside an archive.

    Attributes:
        path: the file, or the archive that holds it.
        member: its name in the archive; empty for a plain file.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def size(self) -> int | None:
        """Bytes that `open` yields; None for a `.gz`, which does not tell."""
        if self.member:
            with zipfile.ZipFile(self.path) as archive:
                return archive.getinfo(self.member).file_size
        return None if self.path.suffix == ".gz" else self.path.stat().st_size

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Yields the bytes; a member of an archive, or a `.gz`, is decompressed as it is read, its CRC checked at the end."""
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield stream
            elif self.path.suffix == ".gz":
                with gzip.open(self.path) as unzipped:
                    yield cast(IO[bytes], unzipped)
            else:
                with self.path.open("rb") as file:
                    yield file
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(f"{self}: cannot be read: {error}; fetch or copy it again") from error


class RawFiles:
    """The files of a dataset by their plain names.

    Args:
        source: a folder or a zip archive. The files may lie at its top or one folder down, as in `ml-100k/u.data`.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self._files: dict[str, RawFile] = {}
        if source.is_dir():
            entries = [
                *source.iterdir(),
                *(path for folder in source.iterdir() if folder.is_dir() for path in folder.iterdir()),
            ]
            named = [(path.relative_to(source), RawFile(path)) for path in entries if path.is_file()]
        elif source.is_file():
            named = [(Path(member), RawFile(source, member)) for member in _members(source)]
        else:
            raise DataUnavailable(f"{source}: no such file or folder; point DATA= (data.source) to a local copy")
        for name, file in sorted(named, key=lambda entry: (len(entry[0].parts), str(entry[0]))):
            self._files.setdefault(name.name, file)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> RawFile:
        if name not in self._files:
            raise DataError(
                f"{self.source}: {name} is missing (has {', '.join(sorted(self._files)[:20]) or 'nothing'})"
            )
        return self._files[name]

    def fingerprint(self, names: Iterable[str]) -> str:
        """SHA-256 over the content of the named files, so that a changed file is noticed whatever its date says."""
        digest = hashlib.sha256()
        for path in sorted({self[name].path for name in names}):
            digest.update(f"{path.name} {sha256(path)}\n".encode())
        return digest.hexdigest()


def _members(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [entry.filename for entry in opened.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{archive}: not a readable zip archive: {error}; fetch or copy it again") from error
    return [name for name in names if len(PurePosixPath(name).parts) <= 2 and not name.startswith("__MACOSX/")]
