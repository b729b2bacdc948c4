"""Stages that are done once: a stage whose inputs, settings and code are those of its last run is not run again.

What a stage depends on is written down as a fingerprint: the settings that it reads, the source files that it runs, the
pinned requirements and the fingerprints of the stages before it. A stage leaves `stages/<name>.json` behind, with its
fingerprint, its result and the size and time of every file that it wrote; when any of these differ, or a file is gone, it
runs again, and so do all after it. A stage that reads from outside of the store runs always; what it found then counts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_exchange_center.errors import DataError
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.workspace import read_json, write_json

log = logging.getLogger("marquee")


@dataclass(frozen=True)
class Stage:
    """One stage of the offline chain.

    Attributes:
        name: of its record and in messages; unique in a chain.
        run: does the work and returns JSON values.
        settings: sections, or dotted names, that it reads.
        code: files and folders of the checkout that it runs, beside data_exchange_center.
        outputs: files and folders that it writes.
        records: folder of its record.
        always: runs each time; the stages after it depend on its result.
    """

    name: str
    run: Callable[[Settings], Mapping[str, Any]]
    settings: tuple[str, ...]
    code: tuple[str, ...]
    outputs: tuple[Path, ...]
    records: Path
    always: bool = False


def run_stages(settings: Settings, stages: Iterable[Stage], *, again: bool = False) -> dict[str, dict[str, Any]]:
    """Runs what is not up to date, in order.

    Args:
        settings: handed to each stage.
        stages: in the order of their dependence: each depends on all before it.
        again: run all of them.

    Returns:
        stage -> its result, with `seconds` (of the run that made it) and `reused`.
    """
    results: dict[str, dict[str, Any]] = {}
    upstream = ""
    for stage in stages:
        fingerprint = upstream = _fingerprint(settings, stage, upstream)
        record = stage.records / f"{stage.name}.json"
        known = None if again or stage.always else _result_of(record, fingerprint)
        if known is not None:
            log.info("== %s: up to date", stage.name)
            results[stage.name] = {**known, "reused": True}
            continue
        log.info("== %s", stage.name)
        record.unlink(missing_ok=True)
        started = time.perf_counter()
        found = dict(stage.run(settings))
        if stage.always:
            upstream = _digest([fingerprint, found])
        result = {**found, "seconds": round(time.perf_counter() - started, 2)}
        write_json(record, {"fingerprint": fingerprint, "result": result, "files": _files(stage.outputs)})
        log.info("   %s: %.1f s", stage.name, result["seconds"])
        results[stage.name] = {**result, "reused": False}
    return results


def _fingerprint(settings: Settings, stage: Stage, upstream: str) -> str:
    tree = settings.model_dump(mode="json")
    read = {dotted: _at(tree, dotted) for dotted in stage.settings}
    code = _code_digest(("data_exchange_center", "requirements.txt", *stage.code))
    return _digest([stage.name, read, code, upstream])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _at(tree: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        tree = tree[part]
    return tree


@cache
def _code_digest(places: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for place in places:
        path = ROOT / place
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if (
                file.suffix in (".py", ".yaml", ".txt")
                and (ROOT / "data_exchange_center" / "store") not in file.parents
            ):
                digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _files(outputs: Iterable[Path]) -> dict[str, list[int]]:
    """Path -> [bytes, modification time in ns] of every file under the outputs."""
    found: dict[str, list[int]] = {}
    for output in outputs:
        for path in sorted(output.rglob("*")) if output.is_dir() else [output]:
            if path.is_file():
                state = path.stat()
                found[str(path)] = [state.st_size, state.st_mtime_ns]
    return found


def _result_of(record: Path, fingerprint: str) -> dict[str, Any] | None:
    """The recorded result when it still holds, else None."""
    if not record.exists():
        return None
    try:
        known = read_json(record)
        if known["fingerprint"] != fingerprint:
            return None
        if not known["files"] or _files(Path(path) for path in known["files"]) != known["files"]:
            return None
        return dict(known["result"])
    except (DataError, KeyError, TypeError) as error:
        log.warning("%s: not a readable record (%s); the stage runs again", record, error)
        return None
