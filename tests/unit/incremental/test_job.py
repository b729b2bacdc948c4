"""Day after day: what is promoted and what is held, and that a job that was killed ends like one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.errors import DataError, LockHeld
from data_exchange_center.owned_lock import owned_lock
from data_exchange_center.vocabulary import FIRST
from data_exchange_center.workspace import read_json, sha256
from offline.incremental import job as job_module
from offline.incremental.findings import Decision, Finding
from offline.incremental.job import DailyJob
from offline.incremental.state import JobState, load_state
from offline.training.trainer import Trainer
from tests.unit.incremental.small_scene import begun, job_of, rows_of, written

DAYS = [f"2026-01-0{day}" for day in range(1, 8)]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose first model is trained."""
    folder = tmp_path_factory.mktemp("first")
    begun(folder)
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path) -> Path:
    shutil.copytree(first, tmp_path / "job")
    return tmp_path / "job"


def done(folder: Path, day: int, **rows: Any) -> dict[str, Any]:
    return job_of(folder, reports=day == 3).run(DAYS[day], written(folder, f"day-{day}", rows_of(10 + day, **rows)))


def held(folder: Path) -> dict[str, str]:
    """What is on disk of the job, by path, with its content; what names the time or the place is left out."""
    root = folder / "store" / "offline" / "small" / "incremental"
    wanted = ("state.json", "runs/*/network/*.safetensors", "replay/*", "ready/*/*", "evidence/*")
    files = sorted(path for pattern in wanted for path in root.glob(pattern))
    found = {str(path.relative_to(root)): sha256(path) for path in files}
    return {name: digest for name, digest in found.items() if not name.startswith("evidence")} | {
        "evidence": str([read_json(path)["attempts"] for path in files if path.parent.name == "evidence"])
    }


def test_a_story_of_six_days(folder: Path) -> None:
    assert done(folder, 0)["outcome"] == "promoted"
    poisoned = done(folder, 1, flipped=0.4)
    assert poisoned["outcome"] == "held" and poisoned["waiting"] == [DAYS[1]]
    assert "live model on the day" in poisoned["reasons"][0] and poisoned["run"] == DAYS[0]
    good = done(folder, 2)
    assert good["outcome"] == "promoted" and good["learned"] == [DAYS[2]]
    assert good["waiting"] == [] and "quarantined: failed 2 times" in good["given_up"][0]
    job = job_of(folder)
    assert done(folder, 3, brands=6)["outcome"] == "promoted"
    live = job.scene.vocabularies_of(job._run(load_state(job.folder).live))
    assert live["brand"].encode("new") == FIRST + 5 and len(live["brand"].tokens) == 6
    page = (job.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 4 and "quarantined" in page
    before = held(folder)
    again = done(folder, 3, brands=6)
    assert again["already"] and again["outcome"] == "promoted" and held(folder) == before
    with pytest.raises(DataError, match="archived already, with other rows"):
        done(folder, 3, brands=5)
    with pytest.raises(DataError, match="is done already, and days are learned in order"):
        job.run("2025-12-31", written(folder, "old", rows_of(99)))


def test_a_day_that_was_held_by_chance_is_learned_with_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "gate_named", lambda _: _hold)
        assert done(folder, 0)["waiting"] == [DAYS[0]]
    following = done(folder, 1)
    assert following["learned"] == [DAYS[0], DAYS[1]] and following["waiting"] == []
    assert set(load_state(job_of(folder).folder).replayed) == {"0-history", DAYS[0], DAYS[1]}


def test_a_backlog_that_spoils_a_candidate_does_not_hold_the_day(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "gate_named", lambda _: _hold)
        done(folder, 0)
    decisions = iter([_hold, _promote])
    monkeypatch.setattr(job_module, "gate_named", lambda _: next(decisions))
    result = done(folder, 1)
    assert result["learned"] == [DAYS[1]] and "quarantined" in result["given_up"][0]
    assert result["run"] == DAYS[1] and not (job_of(folder).folder / "runs" / f"{DAYS[1]}-with-1").exists()


def _hold(*_: object) -> Any:
    return Decision(False, (_finding(False),))


def _promote(*_: object) -> Any:
    return Decision(True, (_finding(True),))


def _finding(passed: bool) -> Finding:
    return Finding("chance", passed, 0.0)


def dying(original: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def die(*arguments: Any, **named: Any) -> Any:
        if after:
            original(*arguments, **named)
        raise KeyboardInterrupt

    return die


@pytest.fixture(scope="module")
def whole(first: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a job leaves that was never killed."""
    folder = tmp_path_factory.mktemp("whole") / "job"
    shutil.copytree(first, folder)
    done(folder, 0, brands=6)
    return held(folder)


@pytest.mark.parametrize(
    ("place", "name", "after"),
    [
        (DailyJob, "_made_ready", True),
        (Trainer, "_step", True),
        (Trainer, "_finish_epoch", True),
        (DailyJob, "_judged", True),
        (job_module, "write_json", True),
        (JobState, "save", False),
        (JobState, "save", True),
    ],
)
def test_a_job_killed_anywhere_ends_like_one_that_was_not(
    folder: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, place: Any, name: str, after: bool
) -> None:
    monkeypatch.setattr(place, name, dying(getattr(place, name), after=after))
    with pytest.raises(KeyboardInterrupt):
        done(folder, 0, brands=6)
    monkeypatch.undo()
    assert done(folder, 0, brands=6)["outcome"] == "promoted"
    assert held(folder) == whole


@pytest.fixture(scope="module")
def after_poison(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose second day was held, failed again with the third, and is quarantined."""
    folder = tmp_path_factory.mktemp("poison") / "job"
    shutil.copytree(first, folder)
    for day, flipped in enumerate((0.0, 0.4, 0.0)):
        done(folder, day, flipped=flipped)
    return folder


@pytest.fixture
def quarantined(after_poison: Path, tmp_path: Path) -> Path:
    shutil.copytree(after_poison, tmp_path / "job")
    return tmp_path / "job"


def test_an_accepted_day_is_learned_and_says_who_found_it_good(quarantined: Path) -> None:
    job = job_of(quarantined, reports=True)
    before = load_state(job.folder)
    result = job.accept(DAYS[1], "Ada", "a campaign, not a fault")
    state = load_state(job.folder)
    assert (result["outcome"], result["learned"], result["run"]) == ("accepted", [DAYS[1]], f"{DAYS[1]}-accepted")
    assert state.given_up == () and state.finished[DAYS[1]].reasons == before.finished[DAYS[1]].reasons
    assert [(one.by, one.why) for one in state.verdicts] == [("Ada", "a campaign, not a fault")]
    assert DAYS[1] in state.replayed and DAYS[1] in {fit.date for fit in state.fits}
    assert "a campaign, not a fault" in (job.folder / "report.html").read_text(encoding="utf-8")
    attempts = read_json(job.folder / "evidence" / f"{DAYS[1]}.json")["attempts"]
    assert [one["run"] for one in attempts] == [DAYS[1], f"{DAYS[1]}-accepted"]
    learned = held(quarantined)
    assert job.accept(DAYS[1], "Bob", "again")["already"] and held(quarantined) == learned
    assert done(quarantined, 3)["outcome"] == "promoted"


def test_a_discarded_day_leaves_the_backlog_and_stays_archived(folder: Path) -> None:
    done(folder, 0, flipped=0.4)
    job = job_of(folder)
    result = job.discard(DAYS[0], "Ada", "labels were joined wrongly")
    assert result["outcome"] == "discarded" and result["waiting"] == []
    assert result["given_up"] == [f"{DAYS[0]}: discarded by Ada: labels were joined wrongly"]
    assert job.days.path(DAYS[0]).is_file() and not (job.folder / "ready" / DAYS[0]).exists()
    assert job.discard(DAYS[0], "Bob", "again")["already"] and load_state(job.folder).verdicts[-1].by == "Ada"
    assert done(folder, 1)["learned"] == [DAYS[1]]
    assert job.accept(DAYS[0], "Ada", "they were right after all")["outcome"] == "accepted"
    with pytest.raises(DataError, match=r"was accepted by Ada and is learned; roll back"):
        job.discard(DAYS[0], "Ada", "no")


def test_only_held_days_are_decided(folder: Path) -> None:
    done(folder, 0)
    job = job_of(folder)
    with pytest.raises(DataError, match=rf"{DAYS[0]} is no held day: it was learned with {DAYS[0]}"):
        job.accept(DAYS[0], "Ada", "good")
    with pytest.raises(DataError, match=rf"{DAYS[1]} was never done; run the job with --date {DAYS[1]} first"):
        job.discard(DAYS[1], "Ada", "bad")
    with pytest.raises(DataError, match="is no date"):
        job.accept("yesterday", "Ada", "good")


@pytest.fixture(scope="module")
def accepted(after_poison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose quarantined day was accepted, by a job that was never killed."""
    folder = tmp_path_factory.mktemp("accepted") / "job"
    shutil.copytree(after_poison, folder)
    job_of(folder).accept(DAYS[1], "Ada", "good")
    return folder


@pytest.mark.parametrize(
    ("place", "name", "after"),
    [
        (DailyJob, "_made_ready", True),
        (Trainer, "_step", True),
        (DailyJob, "_add_evidence", True),
        (JobState, "save", False),
    ],
)
def test_an_acceptance_killed_anywhere_goes_on(
    quarantined: Path, accepted: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, after: bool
) -> None:
    monkeypatch.setattr(place, name, dying(getattr(place, name), after=after))
    with pytest.raises(KeyboardInterrupt):
        job_of(quarantined).accept(DAYS[1], "Ada", "good")
    monkeypatch.undo()
    job_of(quarantined).accept(DAYS[1], "Ada", "good")
    found, whole = held(quarantined), held(accepted)
    assert found.pop("state.json") and whole.pop("state.json") and found == whole  # which notes the time
    states = [load_state(job_of(one).folder).with_values(verdicts=()) for one in (quarantined, accepted)]
    assert states[0] == states[1]


def test_one_job_at_a_time_and_the_holder_is_named(folder: Path) -> None:
    job = job_of(folder)
    with (
        owned_lock(job.folder, "job", "is doing the daily job", "the day 2026-01-01"),
        pytest.raises(LockHeld) as error,
    ):
        done(folder, 0)
    assert "the day 2026-01-01" in error.value.message and "process" in error.value.message


def test_without_a_first_model_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s1_init_train\.py"):
        done(tmp_path, 0)
