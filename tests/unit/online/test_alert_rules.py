"""The Prometheus alerts fire when they should, and speak of metrics that the server has."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from data_exchange_center.settings import ROOT
from online.api import metrics

FOLDER = ROOT / "docker" / "prometheus"


def test_every_alert_is_about_a_metric_that_exists() -> None:
    declared = {metric.name for metric in metrics.REGISTRY.collect()}
    named = set(re.findall(r"marquee_[a-z_]+", (FOLDER / "alerts.yaml").read_text()))
    plain = {re.sub(r"_(total|bucket)$", "", name) for name in named}
    assert plain and plain <= declared


def test_the_alerts_fire_on_a_bad_day_and_are_silent_on_a_calm_one() -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool on PATH (apt-get install prometheus)")
    done = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yaml"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
