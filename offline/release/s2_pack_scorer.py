"""Packs an exported click ranker into a release of kind "scorer": the model, vocabularies, the spec, sample rows and a report."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from data_exchange_center.errors import DataError
from data_exchange_center.release import new_release, open_release
from data_exchange_center.rows.schema import schema_of
from data_exchange_center.scored_rows import SAMPLE, RowForm
from data_exchange_center.settings import Settings
from data_exchange_center.text_encoder import ABOUT, TEXT, TOKENIZER
from data_exchange_center.text_encoder import MODEL as SENTENCE_MODEL
from data_exchange_center.workspace import Workspace, read_json, write_table
from offline.rank.click_run import CURVES, METRICS, OpenRun, draw_curves, open_run
from offline.release.report import write_page
from offline.release.s1_pack_release import copy_files
from offline.text.sentence_model import text_encoder
from offline.training.config import Part

TEMPLATE = "scorer_report.html.j2"
SAMPLE_ROWS = 256
SAMPLED: tuple[Part, ...] = ("test", "validation", "train")  # the first that a run has gives the sample


def pack_scorer(
    settings: Settings, folder: Path, comparison: Path | None = None, note: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes `store/releases/<release>/` from an exported run.

    Args:
        settings: say where the store is; the scene is that of the run's features.
        folder: of the run.
        comparison: JSON of offline/rank/compare.py; its models become a table of the report.
        note: further entries of the manifest.

    Returns:
        release, its path, size and number of files, metrics.

    Raises:
        DataError: the run has not ended, or was not exported.
    """
    run, metrics = open_run(folder), read_json(folder / METRICS)
    if not (folder / CURVES).exists():
        draw_curves(folder, run.config, metrics["history"], metrics["chosen_epoch"])
    export = folder / "export"
    exported = read_json(export / "export.json")
    if run.spec.scene != settings.scene:
        settings = settings.with_values(**{"data.dataset": run.spec.scene, "features.spec": run.spec.scene})
    form = RowForm(
        columns=schema_of(run.spec).describe(),
        inputs=exported["inputs"],
        output=exported["outputs"].get("like") or exported["outputs"]["score"],
    )
    manifest = {
        "rows": metrics["rows"],
        "parity": exported["parity"],
        "metrics": {part: values for part, values in metrics["metrics"].items() if part != "train"},
        "model": {name: metrics[name] for name in ("model", "preset", "parameters", "chosen_epoch", "chosen_by")},
        "run": run.config.model_dump(mode="json", exclude={"data": {"folder", "prepared"}, "training": {"output"}}),
        "scorer": form.model_dump(mode="json"),
        **(note or {}),
    }
    with new_release(settings, manifest, "scorer") as (release, target):
        spec = yaml.safe_dump(run.rows.spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
        (target / "feature_spec.yaml").write_text(spec, encoding="utf-8")
        copy_files(export, target / "model", leave_out={"export.json"})
        for part in ("vocab_map", "token_tables"):
            if (export / part).is_dir():
                copy_files(export / part, target / part)
        if any(feature.text for feature in run.rows.spec.inputs):
            link_text_encoder(settings, run, target / TEXT)
        write_table(target / SAMPLE, sample_of(run))
        write_scorer_report(target / "report", release, folder, manifest, metrics, comparison)
    packed = open_release(Workspace(settings).releases / release)
    return {
        "release": release,
        "path": str(packed.path),
        "mib": round(sum(file["bytes"] for file in packed.manifest["files"].values()) / 2**20, 2),
        "files": len(packed.manifest["files"]),
        "metrics": manifest["metrics"],
    }


def link_text_encoder(settings: Settings, run: OpenRun, target: Path) -> None:
    """Puts the encoder that made the run's vectors into the release. Its files never change: releases share them where the file
    system can.

    Raises:
        DataError: the folder holds none.
    """
    given = run.config.features.text_encoder
    source = Path(given).expanduser() if given else text_encoder(settings)
    if not (source / ABOUT).exists():
        raise DataError(f"{source}: no text encoder lies here", field="features.text_encoder")
    target.mkdir()
    for name in (ABOUT, SENTENCE_MODEL, TOKENIZER):
        try:
            os.link(source / name, target / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / name, target / name)


def sample_of(run: OpenRun) -> pa.Table:
    """The first rows of the last part that the run has, raw and without labels."""
    part = next(part for part in SAMPLED if run.config.data.paths(part))
    for batch in run.rows.part(part, SAMPLE_ROWS):
        names = [feature.name for feature in run.rows.spec.inputs]
        return pa.Table.from_batches([batch]).select(names)
    raise DataError(f"data.{part} holds no row, so the release has no sample to check its model on")


def write_scorer_report(
    target: Path,
    release: str,
    folder: Path,
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Any],
    comparison: Path | None,
) -> None:
    """Writes `report.html`, which opens anywhere without a network, and the curves beside it."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / CURVES, target / CURVES)
    write_page(
        target / "report.html",
        TEMPLATE,
        title=release,
        manifest=manifest,
        parts=metrics["metrics"],
        history=metrics["history"],
        curves=base64.b64encode((target / CURVES).read_bytes()).decode(),
        comparison=[flat(model) for model in read_json(comparison)["models"]] if comparison else [],
    )


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A row of a comparison whose values are plain: an interval becomes its parts."""
    made: dict[str, Any] = {}
    for name, value in row.items():
        made |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return made
