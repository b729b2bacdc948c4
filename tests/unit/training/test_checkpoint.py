"""Checkpoints: whole or not at all, and what is torn is recognised."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError
from offline.training.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint

FILES = ("tensors.safetensors", "state.json", "checksums.json")


def checkpoint(step: int) -> Checkpoint:
    state = {
        "weights": torch.full((3,), float(step)),
        "nested": [{"rate": 0.1, "counts": torch.arange(step)}],
        "none": None,
    }
    return Checkpoint(step, state)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved = checkpoint(7)
    found = load_checkpoint(save_checkpoint(tmp_path, saved, keep=2))
    assert found.step == 7 and found.state["none"] is None and found.state["nested"][0]["rate"] == 0.1
    assert torch.equal(found.state["weights"], saved.state["weights"])
    assert torch.equal(found.state["nested"][0]["counts"], torch.arange(7))


def test_the_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 11
    assert len(list(tmp_path.iterdir())) == 2


def test_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(4), keep=2)
    save_checkpoint(tmp_path, Checkpoint(4, {"other": torch.ones(1)}), keep=2)
    found = newest_checkpoint(tmp_path)
    assert found is not None and set(found.state) == {"other"}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(FILES), cut=st.booleans())
def test_a_torn_or_altered_one_is_recognised(
    data: st.DataObject, name: str, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    save_checkpoint(folder, checkpoint(4), keep=2)
    path = save_checkpoint(folder, checkpoint(5), keep=2) / name
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 2))
    if cut:
        path.write_bytes(content[:place])
    elif chr(content[place]).isspace() and name == "checksums.json":
        return  # a blank more or less between two checksums alters nothing
    else:
        content[place] ^= 0x55
        path.write_bytes(content)
    found = newest_checkpoint(folder)
    assert found is not None and found.step == 4


def test_the_torn_one_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save_checkpoint(tmp_path, checkpoint(5), keep=2) / "state.json"
    path.write_text("{", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path) is None
    assert "step-000000005" in caplog.text and "state.json" in caplog.text
    with pytest.raises(DataError):
        load_checkpoint(tmp_path / "none")


def test_what_a_killed_run_left_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-000000009.abc.tmp").mkdir()
    assert newest_checkpoint(tmp_path) is None and not list(tmp_path.iterdir())
