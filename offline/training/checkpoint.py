"""Checkpoints of a run: tensors as safetensors, the rest as JSON, both under a checksum, written whole or not at all.

    checkpoints/step-000001200/tensors.safetensors   network, optimizers, generators, counters
                               state.json            step, epoch, position in the data, history
                               checksums.json        SHA-256 of both

A checkpoint whose checksums do not hold (torn by a crash, altered on disk) is named in the log, and the one before it is used.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import atomic_folder, atomic_path, read_json, sha256, write_json

log = logging.getLogger("marquee")

TENSORS, STATE, CHECKSUMS = "tensors.safetensors", "state.json", "checksums.json"
PLACE = "$tensor"  # in state.json: the name of the tensor that belongs here


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on.

    Attributes:
        step: optimizer steps done.
        state: nested dicts and lists of plain values and tensors; keys are strings.
    """

    step: int
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`; one of the same step is replaced."""
    tensors: dict[str, Tensor] = {}
    plain = _taken_out(checkpoint.state, "", tensors)
    target = folder / checkpoint_name(checkpoint.step)
    if target.exists():
        shutil.rmtree(target)
    with atomic_folder(target) as made:
        with atomic_path(made / TENSORS) as temporary:
            save_file(tensors, temporary)
        write_json(made / STATE, {"step": checkpoint.step, "torch": torch.__version__, "state": plain})
        write_json(made / CHECKSUMS, {name: sha256(made / name) for name in (TENSORS, STATE)})
    for old in _saved(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint of a step."""
    return f"step-{step:09d}"


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        DataError: a file is missing, torn or altered; the message names it.
    """
    checksums = read_json(path / CHECKSUMS)
    for name in (TENSORS, STATE):
        if not isinstance(checksums, dict) or name not in checksums:
            raise DataError(f"{path / CHECKSUMS}: has no checksum of {name}")
        if not (path / name).is_file():
            raise DataError(f"{path / name}: not there")
        if sha256(path / name) != checksums[name]:
            raise DataError(f"{path / name}: torn or altered, its checksum does not hold")
    content = read_json(path / STATE)
    try:
        tensors = load_file(path / TENSORS)
        return Checkpoint(content["step"], _put_back(content["state"], tensors))
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a checkpoint: {error!r}") from error


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; newer ones that are not whole are named in the log and removed. None when there is none."""
    for leftover in folder.glob(".*.tmp"):  # of a run that was killed while it wrote
        shutil.rmtree(leftover, ignore_errors=True)
    for path in reversed(_saved(folder)):
        try:
            return load_checkpoint(path)
        except DataError as error:
            log.warning("checkpoint %s is not used: %s; going on with the one before", path.name, error.message)
            shutil.rmtree(path)
    return None


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _taken_out(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value with each tensor replaced by its name; the tensors go into the map."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {PLACE: name}
    if isinstance(value, Mapping):
        return {
            str(key): _taken_out(inner, f"{name}.{key}" if name else str(key), tensors) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_taken_out(inner, f"{name}.{place}", tensors) for place, inner in enumerate(value)]
    return value


def _put_back(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {PLACE}:
            return tensors[value[PLACE]]
        return {key: _put_back(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_back(inner, tensors) for inner in value]
    return value


def optimizer_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state as `load_state_dict` takes it: JSON has turned numbers that are keys into text."""
    state = {int(key) if key.isdigit() else key: inner for key, inner in content["state"].items()}
    return {**content, "state": state}
