"""The Prometheus alerts fire when they should, and speak of metrics that the server has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from data_exchange_center.settings import ROOT
from online.api import metrics

FOLDER = ROOT / "docker" / "prometheus"


def test_every_alert_is_about_a_metric_that_exists() -> None:
    declared = {metric.name for metric in metrics.REGISTRY.collect()}
    named = set(re.findall(r"marquee_[a-z_]+", (FOLDER / "alerts.yaml").read_text()))
    plain = {re.sub(r"_(total|bucket)$", "", name) for name in named}
    assert plain and plain <= declared


def test_what_an_alert_counts_is_at_zero_before_it_happens() -> None:
    """A series that begins with 1 has no increase, so its first failure, maybe the only one, would raise nothing."""
    rules = (FOLDER / "alerts.yaml").read_text()
    counted = set(re.findall(r"increase\((marquee_[a-z_]+?)_total", rules))
    assert counted >= {"marquee_events", "marquee_release_loads"}
    named = re.findall(r'increase\((marquee_[a-z_]+_total)\{(\w+)="(\w+)"', rules)
    program = "from online.api import metrics; print(metrics.exposition().decode())"
    text = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"{name}_total{{" in text for name in counted)
    assert all(f'{name}{{{label}="{value}"}} 0.0' in text for name, label, value in named)


def test_the_alerts_fire_on_a_bad_day_and_are_silent_on_a_calm_one() -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool on PATH (apt-get install prometheus)")
    done = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yaml"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
