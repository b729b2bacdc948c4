"""Imports go one way: the rooms know the contract between them, not each other."""

import ast
from pathlib import Path

import pytest

from data_exchange_center.settings import ROOT

ROOMS = ("data_exchange_center", "offline", "offline_to_online", "online")
FORBIDDEN = {
    "data_exchange_center": {"offline", "offline_to_online", "online", "torch"},
    "offline": {"offline_to_online", "online"},
    "online": {"offline", "offline_to_online", "torch"},
    # the sync stage drives the offline room's programs; of its code it may use the torch scorer alone, as parity's reference
    "offline_to_online": set(),
}
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if "store" not in path.parts]


def imports(path: Path) -> set[str]:
    """Full names of every module that a file imports, at any depth of its code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    wrong = {name for name in imports(path) if name.split(".")[0] in FORBIDDEN[room]}
    assert not wrong, f"{path} imports {wrong}"


def test_the_sync_stage_uses_the_offline_room_through_its_scorer_and_its_replay_only() -> None:
    allowed = {"offline.rank.torch_scorer", "offline.preprocess.replay"}
    for path in (ROOT / "offline_to_online").rglob("*.py"):
        wrong = {name for name in imports(path) if name.split(".")[0] == "offline"} - allowed
        assert not wrong, f"{path} imports {wrong}"


def test_no_source_unpickles_or_evaluates() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "joblib.load"}, (
                    f"{path}: {called}"
                )
