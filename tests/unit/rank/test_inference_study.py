"""The inference study: what it measures, that it goes on where it was cut off, and what it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.workspace import read_json
from offline.rank import inference_study as study
from offline.rank.click_run import train_run
from offline.rank.inference_case import Case
from offline.rank.inference_study import cases, fastest, markdown, measurement, quantize, told
from tests.unit.rank.click_files import click_files, files_config

pytestmark = pytest.mark.usefixtures("kept_operators")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    train_run(files_config(click_files(folder / "files"), folder / "run", **{"training.epochs": 1}))
    return folder / "run"


def test_a_study_measures_each_case_in_a_process_of_its_own_and_keeps_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [Case(batch=64), Case(runtime="onnxruntime int8", batch=64), Case(runtime="torch", batch=64)]
    monkeypatch.setattr(study, "cases", lambda quick, present: few)
    made = study.inference_study(run, tmp_path, quick=True)
    assert [one["runtime"] for one in made["cases"]] == ["onnxruntime", "onnxruntime int8", "torch"]
    graph, _, torch = made["cases"]
    assert all(one["runs"] >= 20 and 0 < one["p50_ms"] <= one["p99_ms"] for one in made["cases"])
    assert graph["peak_mib"] < torch["peak_mib"], "a process that needs no torch loads none"
    assert set(made["quality"]) == {"float32", "int8", "cost", "rows"}
    assert abs(made["quality"]["cost"]["auc"]) < 0.05
    assert (tmp_path / "study.png").stat().st_size > 10_000
    assert read_json(tmp_path / "study.json") == made

    monkeypatch.setattr(study.subprocess, "run", lambda *_, **__: pytest.fail("a finished case was measured again"))
    assert study.inference_study(run, tmp_path, quick=True)["cases"] == made["cases"]


def test_a_case_that_this_machine_cannot_run_says_why(run: Path, tmp_path: Path) -> None:
    study.export_run(run)
    quantize(run / "export")
    found = measurement(Case(device="cuda", runtime="torch"), run / "export", tmp_path / "absent.npz", tmp_path, 0.1)
    assert "absent.npz" in found["failed"]
    assert not list(tmp_path.glob("*.json"))


def test_the_full_study_varies_every_switch() -> None:
    full = cases(quick=False, present=["cuda", "tensorrt"])
    assert len(full) == len(set(full)) > len(cases(quick=True, present=[]))
    for name in Case.model_fields:
        assert len({getattr(case, name) for case in full}) > 1 or name == "threads"
    assert {case.runtime for case in full} == set(study.RUNTIMES)


def test_cases_are_told_by_what_differs() -> None:
    assert told(Case().model_dump()) == "onnxruntime, 1 thread"
    assert told(Case(runtime="torch", threads=2, onednn=False).model_dump()) == "torch, 2 threads, onednn off"


def one(case: Case, **measured: Any) -> dict[str, Any]:
    return case.model_dump() | dict.fromkeys(study.COLUMNS, 1.0) | measured


def test_the_table_lists_failures_and_the_fastest_leaves_them_out() -> None:
    measured = [
        one(Case(), p50_ms=2.0),
        one(Case(arena=False), p50_ms=1.0),
        Case(device="cuda").model_dump() | {"failed": "no GPU"},
    ]
    assert fastest(measured) == {"512": "onnxruntime, 1 thread, arena off"}
    text = markdown({"model": "fm", "cores": 2, "cases": measured, "quality": {}, "absent": {"cuda": "none"}})
    assert "Failed: onnxruntime, 1 thread, device cuda, batch 512: no GPU" in text
    assert "Not on this machine: cuda (none)." in text
