"""The release's report is one page that needs nothing else, whatever a dataset cannot give."""

from pathlib import Path
from typing import Any

import pytest

from offline.release.report import write_report

MANIFEST = {
    "data_window": {"first": 1, "last": 2, "interactions": 3},
    "cut": "offline",
    "holdout": "online",
    "parity": {"max_abs_delta": 2e-7},
}
CURVE = [
    {"fit": "judged", "head": "like", "epoch": 1, "train_loss": 0.6, "validation_loss": 0.6, "validation_auc": 0.7},
    {
        "fit": "judged",
        "head": "choose",
        "epoch": 1,
        "train_loss": 4.0,
        "validation_loss": -0.3,
        "validation_ndcg50": 0.3,
    },
    {"fit": "released", "head": "like", "epoch": 1, "train_loss": 0.5},
]
RANKING: dict[str, Any] = {
    "rank": {"auc": 0.8123, "gauc": 0.71},
    "curves": {"epochs": CURVE},
    "calibration": [{"predicted": 0.2, "observed": 0.25, "rows": 10}, {"predicted": 0.8, "observed": 0.7, "rows": 4}],
    "score_histogram": {"edges": [0.0, 0.5, 1.0], "positive": [1, 5], "negative": [4, 0]},
    "importance": [{"feature": "item_rate", "auc_drop": 0.05}],
    "presets": [{"preset": "default", "auc": 0.8123}, {"preset": "<b>paper</b>", "auc": 0.79}],
}
RECALL: dict[str, Any] = {"recall": {"vector": {"r50": 0.5, "r100": 0.6, "r200": 0.8}}, "union": {"r200": 0.82}}


def page(folder: Path, ranking: dict[str, Any], recall: dict[str, Any]) -> str:
    return write_report(folder, "ml-100k-1", MANIFEST, ranking, recall).read_text()


def test_the_page_holds_figures_pictures_and_no_link_to_the_outside(tmp_path: Path) -> None:
    text = page(tmp_path, RANKING, RECALL)
    assert "0.8123" in text
    assert text.count("data:image/png;base64,") == 5
    assert "http://" not in text and "https://" not in text
    assert {path.stem for path in tmp_path.glob("*.png")} == {"recall", "epochs", "calibration", "scores", "importance"}


def test_names_are_escaped(tmp_path: Path) -> None:
    assert "<b>paper</b>" not in page(tmp_path, RANKING, RECALL)


@pytest.mark.parametrize("left_out", ["curves", "calibration", "score_histogram", "importance", "presets"])
def test_a_part_that_a_log_cannot_give_is_left_out(left_out: str, tmp_path: Path) -> None:
    ranking = {name: value for name, value in RANKING.items() if name != left_out}
    assert "ml-100k-1" in page(tmp_path, ranking, {"recall": {}, "note": "nothing held out"})
