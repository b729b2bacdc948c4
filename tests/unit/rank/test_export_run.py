"""A trained run becomes one graph under the asked names, and a scorer release that is checked on its own rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError, ReleaseError, SettingsError
from data_exchange_center.release import find_release
from data_exchange_center.rows.schema import schema_of
from data_exchange_center.scored_rows import graph_inputs, row_form, sample_inputs
from data_exchange_center.workspace import read_table, write_json
from offline.rank import export
from offline.rank.click_run import open_run, train_run
from offline.rank.export import export_run, names_of
from offline.rank.graph_export import ExportError
from offline.rank.odd_rows import odd_rows
from offline.release.s2_pack_scorer import pack_scorer
from tests.factories import make_release, make_settings
from tests.unit.models.tiny_scene import tiny_encoder
from tests.unit.rank.click_files import click_files, click_table, files_config

pytestmark = pytest.mark.usefixtures("kept_operators")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, of a network and trees."""
    folder = tmp_path_factory.mktemp("export")
    values = {"training.epochs": 1, "trees.count": 20, "trees.least_rows": 20}
    train_run(files_config(click_files(folder / "files"), folder / "run", **values))
    return folder / "run"


def test_the_graph_scores_raw_rows_as_the_run_predicted_them(run: Path) -> None:
    result = export_run(run)
    assert result["parity"]["rows"] == 10_000
    assert result["parity"]["max_abs_delta"] <= 1e-6
    table = click_table(400, 3)
    spec = open_run(run).spec
    rows = graph_inputs(spec, result["inputs"], table)
    (scores,) = ort.InferenceSession(result["path"]).run(["like"], rows)
    expected = read_table(run / "predictions" / "test.parquet")["probability"].to_numpy()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_inputs_and_outputs_are_called_as_asked(run: Path) -> None:
    result = export_run(run, ["i1=price"], "ad_", ["ctr", "ctr_logit"])
    session = ort.InferenceSession(result["path"])
    assert [given.name for given in session.get_inputs()] == ["price", "ad_c1", "ad_c2"]
    assert [made.name for made in session.get_outputs()] == ["ctr", "ctr_logit"]
    assert result["outputs"] == {"like": "ctr", "like_logit": "ctr_logit"}


@pytest.mark.parametrize("given", [["i1"], ["i9=price"], ["i1=c1"]])
def test_a_name_that_cannot_be_is_refused(run: Path, given: list[str]) -> None:
    with pytest.raises(SettingsError):
        export_run(run, given)
    with pytest.raises(SettingsError, match="4 outputs"):
        names_of(open_run(run).spec, outputs=["a", "b", "c", "d", "e"])


def test_a_graph_that_differs_from_torch_is_not_exported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_run(run)
    whole = export.export_graph

    def altered(ranker, encoder):  # type: ignore[no-untyped-def]
        ranker.calibration[:, 1] += 1e-3
        return whole(ranker, encoder)

    monkeypatch.setattr(export, "export_graph", altered)
    with pytest.raises(ExportError, match="differs from torch"):
        export_run(run)
    assert not (run / "export" / "export.json").exists()
    with pytest.raises(DataError, match="export.json"):
        pack_scorer(make_settings(run), run)


def test_a_release_holds_the_model_its_rows_and_its_report(run: Path, tmp_path: Path) -> None:
    export_run(run, outputs=["ctr"], prefix="ad_")
    comparison = tmp_path / "compare.json"
    write_json(comparison, {"models": [{"model": "deepfm", "auc": 0.731}, {"model": "dcnv2", "auc": 0.742}]})
    made = make_settings(tmp_path)
    packed = pack_scorer(made, run, comparison)
    release = find_release(made, packed["release"])
    assert (release.kind, release.scene) == ("scorer", "clicks")
    form = row_form(release)
    assert (form.output, form.inputs["c1"]) == ("ctr", "ad_c1")
    assert form.row_schema() == schema_of(open_run(run).spec)
    inputs = sample_inputs(release)
    (scores,) = ort.InferenceSession(release.file("model/model.onnx")).run(["ctr"], inputs)
    expected = read_table(run / "predictions" / "test.parquet")["probability"].to_numpy()
    np.testing.assert_allclose(scores, expected[: len(scores)], rtol=0, atol=1e-6)
    report = release.file("report/report.html").read_text()
    assert "dcnv2" in report and "0.7420" in report
    assert str(tmp_path) not in (release.path / "manifest.json").read_text()
    assert release.spec() == open_run(run).rows.spec


def test_a_chain_is_no_scorer(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="is a chain"):
        row_form(make_release(tmp_path, users=5, items=12))


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 50), seed=st.integers(0, 2**31), ids=st.sampled_from(["int64", "string"]))
def test_odd_rows_fit_the_graph_and_score_finitely(rows: int, seed: int, ids: str) -> None:
    encoder = tiny_encoder(ids)
    made = odd_rows(encoder, rows, seed)
    encoded = encoder_answers(ids, made)
    assert all(np.isfinite(values).all() for values in encoded if values.dtype == np.float32)


def encoder_answers(ids: str, rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    if ids not in SESSIONS:
        SESSIONS[ids] = ort.InferenceSession(tiny_encoder(ids).model(users=1).SerializeToString())
    return SESSIONS[ids].run(None, rows)


SESSIONS: dict[str, ort.InferenceSession] = {}
