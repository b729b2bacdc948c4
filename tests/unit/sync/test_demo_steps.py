"""Which data a demo goes on with when its dataset cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.errors import DataUnavailable
from data_exchange_center.programs import ProgramFailed
from data_exchange_center.settings import Settings
from offline_to_online import demo_steps
from offline_to_online.demo_steps import with_available_data
from tests.factories import make_settings


@pytest.fixture(autouse=True)
def _nothing_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(script: str, arguments: list[str], settings: Settings) -> dict[str, Any]:
        failed = ProgramFailed("not to be had")
        failed.code = DataUnavailable.code
        raise failed

    monkeypatch.setattr(demo_steps, "run_program", fails)


def test_generated_data_stand_in_for_a_public_dataset_that_cannot_be_fetched(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **{"data.dataset": "ml-100k", "data.source": ""})
    assert with_available_data(settings).data.dataset == "synthetic"


@pytest.mark.parametrize("own", [{"data.dataset": "mine.yaml"}, {"data.dataset": "ml-100k", "data.source": "/gone"}])
def test_nothing_stands_in_for_data_of_ones_own(tmp_path: Path, own: dict[str, str]) -> None:
    with pytest.raises(ProgramFailed, match="not to be had"):
        with_available_data(make_settings(tmp_path, **own))
