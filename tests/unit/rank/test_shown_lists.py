"""Of a log of impressions the ranker learns which of the shown items was taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from offline.rank import chain_update
from tests.factories import make_settings

ROWS = pa.table(
    {
        "user_id": [1, 1, 1, 1, 2, 9],
        "item_id": [10, 11, 10, 99, 10, 10],  # 10 twice for user 1, taken the second time; 99 and user 9 came since
        "label": pa.array([0, 0, 1, 1, 0, 1], pa.int8()),
    }
)


def asked(monkeypatch: pytest.MonkeyPatch, folder: Path, labels: str) -> Any:
    """What would be encoded: (candidates, chosen), or None."""
    known = {"users": pa.table({"user_id": [1, 2]}), "items": pa.table({"item_id": [10, 11, 12]})}
    monkeypatch.setattr(chain_update, "read_dataset_info", lambda _: SimpleNamespace(labels=labels))
    monkeypatch.setattr(chain_update, "read_table", lambda path: known[path.stem])
    monkeypatch.setattr(chain_update, "recall_scores_for", lambda settings, cut, pairs: pairs)
    monkeypatch.setattr(chain_update, "_encoded_lists", lambda trunk, encoder, start, *tables: tables[:2])
    nothing: Any = None
    return chain_update._shown_lists(nothing, nothing, make_settings(folder), "offline", ROWS)


@pytest.mark.parametrize("labels", ["impressions", "outcome"])
def test_each_shown_item_once_with_whether_it_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str
) -> None:
    candidates, chosen = asked(monkeypatch, tmp_path, labels)
    pairs = sorted(zip(candidates["user_id"].to_pylist(), candidates["item_id"].to_pylist(), strict=True))
    assert pairs == [(1, 10), (1, 11), (2, 10)]
    assert chosen.to_pylist() == [{"user_id": 1, "item_id": 10}]


def test_other_logs_do_not_say_what_was_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, tmp_path, "ratings") is None
