"""Criteo's clicks: where the rows are, and which of them train, validate and test.

`criteo` is a local copy (`data.source`) or, without one, the sample of 80,000 rows that the RecIS project publishes as an example
(https://github.com/alibaba/RecIS, Apache-2.0; 8 ORC files). `criteo-synthetic` is generated, with a truth that is known.

A local copy is a folder, a file or an archive with rows in any format that `offline/reading` knows: the challenge's `train.txt` and
`test.txt`, days of the terabyte log, slot text in part files, Parquet, ORC. The rows' order is taken for their order in time:

- with folders named `train`, `validation` and `test`, these are the split;
- else the labelled files are split in order: the last eighth of them is the test, the eighth before it the validation;
- fewer than three labelled files are first converted into 8 Parquet files, once, under the store.

Files without labels take no part; they are what one wants scored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_exchange_center.errors import DataError, DataUnavailable, SettingsError
from data_exchange_center.rows.schema import RowSchema, criteo_schema
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, atomic_folder, read_json
from offline.datasets.convert_rows import convert_rows
from offline.datasets.criteo_synthetic import TRUTH, write_synthetic
from offline.datasets.fetch import Archive, fetch
from offline.reading.files import find_files, open_files
from offline.reading.reader import RowReader

log = logging.getLogger("marquee")

CLICK_DATASETS = ("criteo", "criteo-synthetic")
PARTS = 8
SPLITS = ("train", "validation", "test")
SAMPLE = (
    Archive("part-0.orc", "6fd1b51d9cdb6823a0aab6317d7ebe40"),
    Archive("part-1.orc", "7ff506fc7fbc80b00d5d1ad43fd7bea0"),
    Archive("part-2.orc", "7e4cede34163224e68633cb1d60b005c"),
    Archive("part-3.orc", "c375e4a5c990eb1260d4ea2891318dc9"),
    Archive("part-4.orc", "f2ccbf93c4aff7a121f0342fd51ebf08"),
    Archive("part-5.orc", "2739271f32736f3d5c03f4a392dd25aa"),
    Archive("part-6.orc", "f20d66bf52bbe505f11b977e0d5f175b"),
    Archive("part-7.orc", "405db1e7f5b71476740f7c98bdd20949"),
)
_NO_ROWS = ("readme", "license", "licence")  # files that lie beside the rows in what publishers ship


@dataclass(frozen=True)
class Clicks:
    """Files of rows.

    Attributes:
        train, validation, test: labelled files, in order.
        unlabelled: files without labels.
        source: where they come from, for people.
        truth: of generated rows: what the true log-odds reach (auc, logloss), over all of them.
    """

    train: list[Path]
    validation: list[Path]
    test: list[Path]
    source: str
    unlabelled: list[Path] = field(default_factory=list)
    truth: dict[str, Any] = field(default_factory=dict)


def find_clicks(settings: Settings, schema: RowSchema | None = None) -> Clicks:
    """Finds the rows of the chosen dataset, fetching, generating, unpacking or converting them when that has not been done.

    Args:
        settings: `data.dataset` is one of `CLICK_DATASETS`; `data.source` points to a local copy.
        schema: of the rows; by default Criteo's.

    Raises:
        DataUnavailable: neither found nor fetched; the message says what could not be reached and what to do.
        DataError: files that cannot be read, or no labelled rows.
        SettingsError: another dataset.
    """
    workspace, schema = Workspace(settings), schema or criteo_schema()
    name, source = settings.data.dataset, settings.data.source
    if name not in CLICK_DATASETS:
        raise SettingsError(
            f"dataset {name!r} has no rows of clicks; {', '.join(CLICK_DATASETS)} have", field="data.dataset"
        )
    if name == "criteo-synthetic":
        return _generated(settings, workspace)
    if source:
        return _split(_unpacked(Path(source).expanduser().resolve(), workspace), schema, workspace)
    folder = workspace.raw
    for archive in SAMPLE:
        fetch(archive, folder, settings.data.criteo_mirror)
    return _split(folder, schema, workspace)


def check_clicks(settings: Settings) -> dict[str, Any]:
    """Finds the rows and reads all of them: rows and click rate of each split."""
    clicks = find_clicks(settings)
    summary: dict[str, Any] = {"dataset": settings.data.dataset, "source": clicks.source}
    for split in SPLITS:
        files = getattr(clicks, split)
        reader = RowReader(files, criteo_schema(), batch_size=65_536)
        rows, positives = 0, 0.0
        for batch in reader:
            rows += len(batch)
            positives += pc.sum(batch["label"]).as_py()
        summary[split] = {"files": len(files), "rows": rows, "click_rate": round(positives / max(rows, 1), 6)}
    return {**summary, "unlabelled_files": len(clicks.unlabelled), **({"truth": clicks.truth} if clicks.truth else {})}


def _generated(settings: Settings, workspace: Workspace) -> Clicks:
    rows, seed = settings.data.synthetic_clicks, settings.data.synthetic_seed
    folder = workspace.raw / f"rows-{rows}-seed-{seed}"
    if not folder.exists():
        write_synthetic(folder, rows, seed=seed, rows_per_file=-(-rows // PARTS))
    found = _split(folder, criteo_schema(), workspace)
    return Clicks(
        found.train,
        found.validation,
        found.test,
        source=f"generated: {rows} rows, seed {seed}",
        truth=read_json(folder / TRUTH / "truth.json"),
    )


def _unpacked(source: Path, workspace: Workspace) -> Path:
    """The folder or file of rows: an archive is unpacked, once, into the store."""
    if not source.exists():
        raise DataUnavailable(f"{source}: no such file or folder; point DATA= (data.source) to a local copy")
    if source.is_dir() or not (tarfile.is_tarfile(source) or zipfile.is_zipfile(source)):
        return source
    folder = workspace.raw / f"unpacked-{_fingerprint([source])}"
    if not folder.exists():
        log.info("unpacking %s", source)
        try:
            with atomic_folder(folder) as temporary:
                if zipfile.is_zipfile(source):
                    with zipfile.ZipFile(source) as zipped:
                        zipped.extractall(temporary)  # noqa: S202 - it leaves out what points outside of the folder
                else:
                    with tarfile.open(source) as packed:
                        packed.extractall(temporary, filter="data")
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(f"{source}: cannot be unpacked: {error}; fetch or copy it again") from error
    return folder


def _split(source: Path, schema: RowSchema, workspace: Workspace) -> Clicks:
    named = {split: source / split for split in SPLITS}
    if all(folder.is_dir() for folder in named.values()):
        train, validation, test = (find_files(folder) for folder in named.values())
        return Clicks(train, validation, test, str(source))
    labelled: list[Path] = []
    unlabelled: list[Path] = []
    for path in find_files(source):
        if not path.name.lower().startswith(_NO_ROWS):
            (labelled if open_files(path, schema)[1].label else unlabelled).append(path)
    if not labelled:
        raise DataError(f"{source}: none of its files has labelled rows")
    if len(labelled) < len(SPLITS):
        labelled = _in_parts(labelled, schema, workspace)
    eighth = max(len(labelled) // PARTS, 1)
    return Clicks(labelled[: -2 * eighth], labelled[-2 * eighth : -eighth], labelled[-eighth:], str(source), unlabelled)


def _in_parts(files: list[Path], schema: RowSchema, workspace: Workspace) -> list[Path]:
    folder = workspace.offline / f"rows-{_fingerprint(files, schema)}"
    if not folder.exists():
        log.info("converting %s into %d Parquet files, once", ", ".join(map(str, files)), PARTS)
        convert_rows(files, folder, schema=schema, parts=PARTS)
    parts = find_files(folder)
    if len(parts) < len(SPLITS):
        raise DataError(f"{files[0]}: too few rows to train, validate and test with")
    return parts


def _fingerprint(files: list[Path], schema: RowSchema | None = None) -> str:
    """Of names, sizes and times of files that are too large to be read for it."""
    known: list[Any] = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    text = json.dumps([known, schema.describe() if schema else None])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
