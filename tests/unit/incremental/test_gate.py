"""What goes live and what does not: on rows of a known truth, good candidates pass, spoiled days and harmful candidates do not."""

from __future__ import annotations

import numpy as np
import pytest

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import IncrementalSettings
from offline.incremental.day_fit import DayFit, Measured, auc_with_error, fit_of, unlike_the_others
from offline.incremental.gate import Evidence, Judged, bootstrap_gate, gate_named, plain_gate
from offline.training.metrics import auc

SETTINGS = IncrementalSettings(resamples=100)


def rows_of(
    count: int, seed: int, noise: float = 0.3, flipped: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, the model's probabilities, the truth's logits)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, count)
    labels = random.random(count) < 1 / (1 + np.exp(-logits))
    labels = labels ^ (random.random(count) < flipped)
    return labels.astype(np.float32), 1 / (1 + np.exp(-(logits + noise * random.normal(size=count)))), logits


def day(seed: int, rows: int = 2000, flipped: float = 0.0) -> DayFit:
    labels, live, _ = rows_of(rows, seed, flipped=flipped)
    return fit_of(f"2026-01-{seed % 28 + 1:02d}", labels, live)


HISTORY = [day(seed) for seed in range(10)]


def evidence(
    noise: float, fit: DayFit | None = None, *, replay_noise: float | None = None, worse: int = -1
) -> Evidence:
    """A live model of noise .3 and a candidate of that noise; `worse`: the segment in which it knows nothing."""
    labels, live, logits = rows_of(4000, 1)
    replayed = np.arange(4000) >= 800
    random = np.random.default_rng(2)
    size = np.where(replayed, noise if replay_noise is None else replay_noise, noise)
    candidate = logits + size * random.normal(size=4000)
    city = random.integers(0, 8, 4000)
    candidate = np.where(city == worse, random.normal(size=4000), candidate)
    rows = Judged(labels, live, 1 / (1 + np.exp(-candidate)), replayed, {"city": city})
    return Evidence(rows, fit or day(99), HISTORY)


def test_a_better_or_equal_candidate_goes_live() -> None:
    for noise in (0.2, 0.3):
        assert bootstrap_gate(evidence(noise), SETTINGS).promote
    assert plain_gate(evidence(0.2), SETTINGS).promote


def test_a_worse_candidate_is_held_and_the_reason_has_its_numbers() -> None:
    decision = bootstrap_gate(evidence(1.5), SETTINGS)
    assert not decision.promote
    assert any("AUC on all judged rows" in reason and "limit -0.0100" in reason for reason in decision.reasons)
    assert not plain_gate(evidence(1.5), SETTINGS).promote


def test_forgetting_holds_although_the_day_itself_is_learned() -> None:
    decision = bootstrap_gate(evidence(0.0, replay_noise=0.9), SETTINGS)
    assert not decision.promote and any("replayed days" in reason for reason in decision.reasons)


def test_one_harmed_segment_holds() -> None:
    decision = bootstrap_gate(evidence(0.0, worse=3), SETTINGS)
    assert [reason.split(":")[0] for reason in decision.reasons if "city" in reason] == ["AUC on city 3"]


@pytest.mark.parametrize("seed", range(100, 104))
def test_a_day_of_flipped_labels_is_held_whatever_the_candidate_says(seed: int) -> None:
    fit = day(seed, flipped=0.3)
    decision = bootstrap_gate(evidence(0.0, fit), SETTINGS)
    assert not decision.promote and "live model on the day" in decision.reasons[0]
    assert plain_gate(evidence(0.0, fit), SETTINGS).promote


def test_good_days_are_hardly_ever_unlike_the_others_and_neither_are_drifting_ones() -> None:
    passed = [all(one.passed for one in unlike_the_others(day(seed), HISTORY, SETTINGS)) for seed in range(200, 300)]
    assert all(passed)
    falling = [
        DayFit(f"2026-02-{n + 1:02d}", 2000, Measured(0.8 - 0.002 * n, 0.01), Measured(0.5, 0.01)) for n in range(20)
    ]
    for place in range(5, 20):
        assert all(one.passed for one in unlike_the_others(falling[place], falling[:place], SETTINGS))


def test_small_days_of_flipped_labels_are_found_too_and_one_good_day_is_enough_to_compare() -> None:
    found = [unlike_the_others(day(seed, 500, 0.3), HISTORY[:1], SETTINGS) for seed in range(20)]
    assert all(not all(one.passed for one in findings) for findings in found)


def test_nothing_to_compare_with_is_no_reason_to_hold() -> None:
    assert all(one.passed and "nothing to compare" in one.note for one in unlike_the_others(day(1), [], SETTINGS))
    labels, live = np.ones(5, np.float32), np.full(5, 0.5)
    one_class = Evidence(Judged(labels, live, live, np.zeros(5, bool)), fit_of("2026-01-01", labels, live), HISTORY)
    assert bootstrap_gate(one_class, SETTINGS).findings[0].passed


def test_the_error_of_an_auc_is_its_spread_over_samples() -> None:
    found = [auc_with_error(*rows_of(600, seed)[:2]) for seed in range(300)]
    assert found[0].value == pytest.approx(auc(*rows_of(600, 0)[:2]), abs=1e-12)
    assert np.mean([one.error for one in found]) == pytest.approx(np.std([one.value for one in found]), rel=0.1)


def test_gates_have_names() -> None:
    assert gate_named("plain") is plain_gate
    with pytest.raises(SettingsError, match="plain, bootstrap"):
        gate_named("hope")
