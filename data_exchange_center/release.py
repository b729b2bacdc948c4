"""An immutable, checksummed bundle of one training run. Two kinds: a `chain` recommends, a `scorer` scores rows that come whole.

Both hold
    manifest.json                       release, kind, created, dataset, scene, seed, code_version, settings, rows,
                                        feature_spec_sha256, files{path: {sha256, bytes}}, metrics{...}
    feature_spec.yaml                   the declaration that everything below was made with
    vocab_map/<feature>.json            vocabularies, readable
    model/model.onnx                    raw features in, scores out
    model/network.safetensors, network.json   the torch network's weights and its configuration
    report/                             report.html and its pictures

A chain also holds (`data_window` in its manifest; the graph gives score, like and their logits)
    tables/users.parquet                attributes; row order = "user row"
    tables/items.parquet                attributes; row order = "item row", which every array below refers to
    tables/user_profiles.parquet        segment, terms, history (tables.USER_PROFILES)
    tables/user_features.parquet        raw features of every user as of the snapshot (tables.USER_FEATURES + the spec)
    tables/item_features.parquet        raw features of every item as of the snapshot (tables.ITEM_FEATURES + the spec)
    tables/item_standing.parquet        optional: what events that come later are judged against (tables.ITEM_STANDING)
    recall/                             arrays of the recall channels (recall_scores.py says which)

A scorer also holds (`scorer` in its manifest says which input is which feature, and which output is the answer)
    sample/rows.parquet                 raw rows, on which whoever serves the model compares it with the file
    text/                               where a feature is made of text: what makes its vectors (text_encoder.py)

Nothing is read from a release whose checksums do not hold. A release is written to a temporary folder and renamed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from data_exchange_center.errors import DataError, ReleaseError
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.workspace import Workspace, atomic_folder, read_json, read_table, sha256, write_json

MANIFEST = "manifest.json"
Kind = Literal["chain", "scorer"]
_EVERY = ("feature_spec.yaml", "model/model.onnx")
REQUIRED_FILES: dict[Kind, tuple[str, ...]] = {
    "chain": (
        *_EVERY,
        "tables/users.parquet",
        "tables/items.parquet",
        "tables/user_profiles.parquet",
        "tables/user_features.parquet",
        "tables/item_features.parquet",
    ),
    "scorer": (*_EVERY, "sample/rows.parquet"),
}


@dataclass(frozen=True)
class Release:
    """One release on disk, opened by `open_release`."""

    path: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.manifest["release"])

    @property
    def scene(self) -> str:
        return str(self.manifest["scene"])

    @property
    def kind(self) -> Kind:
        return _kind_in(self.manifest)

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists."""
        if name not in self.manifest["files"]:
            raise ReleaseError(f"release {self.id}: the manifest lists no file {name!r}")
        return self.path / name

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """`tables/<name>.parquet`, e.g. `table("items")`."""
        return self.table_at(f"tables/{name}.parquet", columns)

    def table_at(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file that the manifest lists, by its path."""
        return read_table(self.file(name), columns)

    def spec(self) -> FeatureSpec:
        """The feature spec that this release was made with (never the checkout's)."""
        return load_spec(self.file("feature_spec.yaml"))


@contextmanager
def new_release(settings: Settings, manifest: dict[str, Any], kind: Kind = "chain") -> Iterator[tuple[str, Path]]:
    """Yields (release id, empty folder to fill); when the block ends well, writes the manifest and moves the folder in place.

    Args:
        settings: their secrets are left out of the manifest.
        manifest: entries known so far (`dataset`, `scene`, `data_window`, `rows`, `metrics`, ...); the block may add to it.
        kind: what the release is for.

    Raises:
        ReleaseError: a file that every release of this kind has is missing when the block ends.
    """
    created = datetime.now(UTC)
    # lower case, digits and - only: the id becomes part of index names, Redis keys, feature views and model versions
    name = re.sub(r"[^a-z0-9]+", "-", settings.dataset_name.lower()).strip("-") or "log"
    identifier = f"{name}-{created:%Y%m%dt%H%M%S}-{created.microsecond // 1000:03d}-s{settings.seed}"
    with atomic_folder(Workspace(settings).releases / identifier) as folder:
        yield identifier, folder
        absent = [name for name in REQUIRED_FILES[kind] if not (folder / name).is_file()]
        if absent:
            raise ReleaseError(f"release {identifier}: {absent} were not written")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        write_json(
            folder / MANIFEST,
            {
                "release": identifier,
                "kind": kind,
                "created": created.isoformat(timespec="seconds"),
                "dataset": settings.dataset_name,
                "scene": settings.scene,
                "seed": settings.seed,
                "code_version": code_version(),
                "feature_spec_sha256": sha256(folder / "feature_spec.yaml"),
                "settings": settings.model_dump(
                    mode="json", exclude={"serve": {"admin_token"}, "stores": True, "data": {"store", "source"}}
                ),
                **manifest,
                "files": {
                    path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
                    for path in files
                },
            },
        )


def open_release(path: Path, *, verify: bool = True) -> Release:
    """Opens a release folder and checks every file against the manifest.

    Args:
        path: the release's folder.
        verify: compare checksums too (0.1 s per 100 MB); existence and size are always compared.

    Raises:
        ReleaseError: no such release, a broken manifest, or a file that is missing, of another size or altered; it is named.
    """
    if not path.is_dir():
        raise ReleaseError(f"{path}: no such release")
    try:
        manifest = read_json(path / MANIFEST)
        files = dict(manifest["files"])
        for key in ("release", "scene", "feature_spec_sha256"):
            manifest[key]
        kind = _kind_in(manifest)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ReleaseError(f"{path / MANIFEST}: missing or not a manifest: {error}") from error
    if manifest["release"] != path.name:
        raise ReleaseError(f"{path / MANIFEST}: is the manifest of {manifest['release']!r}")
    for name in REQUIRED_FILES[kind]:
        if name not in files:
            raise ReleaseError(f"{path / MANIFEST}: lists no {name}")
    for name, promised in files.items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise ReleaseError(f"{path / MANIFEST}: {name!r} lies outside of the release")
        if not file.is_file():
            raise ReleaseError(f"{file}: missing; restore it or build the release again")
        if file.stat().st_size != promised["bytes"]:
            raise ReleaseError(f"{file}: {file.stat().st_size} bytes, the manifest says {promised['bytes']}")
        if verify and sha256(file) != promised["sha256"]:
            raise ReleaseError(f"{file}: checksum differs from the manifest's; restore it or build the release again")
    return Release(path, manifest)


def list_releases(settings: Settings) -> list[str]:
    """Ids of complete releases of the settings' scene, oldest first."""
    folder = Workspace(settings).releases
    found = []
    for manifest in folder.glob(f"*/{MANIFEST}"):
        if manifest.parent.name.startswith("."):
            continue
        try:
            content = read_json(manifest)
            found.append((content["created"], content["release"], content["scene"]))
        except (DataError, KeyError, TypeError) as error:
            raise ReleaseError(f"{manifest}: not a manifest: {error}") from error
    return [release for _, release, scene in sorted(found) if scene == settings.scene]


def find_release(settings: Settings, release: str = "", *, verify: bool = True) -> Release:
    """A release by id, or the newest of the scene."""
    if not release:
        known = list_releases(settings)
        if not known:
            raise ReleaseError(
                f"no release of scene {settings.scene!r} in {Workspace(settings).releases}; run `make demo`"
            )
        release = known[-1]
    if "/" in release or release.startswith("."):
        raise ReleaseError(f"{release!r} is not a release id")
    return open_release(Workspace(settings).releases / release, verify=verify)


def _kind_in(manifest: dict[str, Any]) -> Kind:
    kind: Kind = manifest.get("kind", "chain")
    if kind not in REQUIRED_FILES:
        raise ValueError(f"kind {kind!r} is none of {', '.join(REQUIRED_FILES)}")
    return kind


def code_version() -> str:
    """The checkout's commit, `-dirty` when files differ from it, `unknown` outside of a git checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
