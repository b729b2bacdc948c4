"""A chain, day by day: what a day teaches goes on from the release before, and the new release is whole and true to its log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.daily_chain import MODELS, Story, told
from data_exchange_center.errors import DataError, DataUnavailable
from data_exchange_center.release import find_release
from data_exchange_center.settings import Settings
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import Workspace, read_table, sha256, write_table
from offline.incremental.chain_log import ChainLog, check_events, dates_of, is_chain
from offline.incremental.chain_scene import ChainScene
from offline.incremental.days import DayArchive
from offline.incremental.sources import day_of, history_of
from offline.incremental.state import JobState, Live, Outcome
from offline.rank import s2_model_train
from offline.rank.chain_update import released_fit
from offline_to_online.rank.s3_check_offline_and_online import compare, summary
from online.api.app import build_app
from online.api.runtime import Runtime
from online.stores import embedded_redis
from online.stores.open import open_stores
from tests.unit.incremental.small_chain import chain_job, day_after, events_of, small_settings, written
from tests.unit.online.conftest import publish


@dataclass(frozen=True)
class Learned:
    """The benchmark's story on a small log, one day more with a release, and the day that comes then."""

    settings: Settings
    told: Story
    events: pa.Table
    date: str
    rows: pa.Table
    next_date: str
    next_rows: pa.Table
    result: dict[str, Any]

    @property
    def runs(self) -> Path:
        return Workspace(self.settings).offline / "incremental" / "runs"

    @property
    def first(self) -> Path:
        """The vocabularies of the first training."""
        own = ChainScene(self.settings).workspace_of(self.runs / "first")
        return released_fit(own).folder(own) / "vocab_map"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("chain")
    settings = small_settings(folder, **{"incremental.keep_runs": 9})
    events = events_of(settings)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            s2_model_train, "export_model", lambda *_: {"parity": {}}
        )  # seconds, and it is not released here
        told_days = told(settings, folder / "work", least=10, days=2, retrains=False, processes=1)
    date, rows = day_after(events, 1)
    result = chain_job(settings).run(date, written(folder, date, rows))
    assert result["outcome"] == "promoted", result["reasons"]
    return Learned(settings, told_days, events, date, rows, *day_after(events, 2), result)


def test_each_day_is_scored_by_what_was_live_before_it(story: Learned) -> None:
    told_days = story.told
    assert told_days.outcomes == ["promoted", "promoted"] and min(told_days.rows) >= 1
    never, job = (told_days.quality[name] for name in MODELS[:2])
    assert never[0] == job[0] and never[1] != job[1]  # before the first day both are the first training
    assert [len(one) for one in told_days.recall[MODELS[0]]] == [len(one) for one in told_days.recall[MODELS[1]]]


def test_a_promoted_day_is_a_release_that_knows_the_day(story: Learned) -> None:
    release = find_release(story.settings, story.result["release"])
    assert release.manifest["incremental"]["date"] == story.date
    assert release.manifest["data_window"]["interactions"] == len(story.events) + len(story.rows)
    profiles = release.table("user_profiles").to_pylist()
    events = sum(len(one["history"]) for one in profiles)
    assert events == len(story.events) + len(story.rows)
    came = set(story.rows["user_id"].to_pylist()) - set(story.events["user_id"].to_pylist())
    assert came and came <= {one["user_id"] for one in profiles}


def test_ids_stay_and_new_ones_follow(story: Learned) -> None:
    release = find_release(story.settings, story.result["release"])
    for name in ("user_id", "item_id", "genres", "gender"):
        before, after = Vocabulary.load(story.first, name), Vocabulary.load(release.path / "vocab_map", name)
        assert after.tokens[: len(before.tokens)] == before.tokens
    users = story.rows["user_id"].value_counts().to_pylist()
    known = Vocabulary.load(story.first, "user_id").ids
    new = [one["values"] for one in users if one["counts"] >= 2 and one["values"] not in known]
    assert new and set(new) <= set(Vocabulary.load(release.path / "vocab_map", "user_id").ids)


def test_the_same_day_gives_the_same_network(story: Learned, tmp_path: Path) -> None:
    scene, ready = ChainScene(story.settings), tmp_path / story.next_date / "train.parquet"
    write_table(scene.log.archive.path(story.next_date), story.next_rows)
    write_table(ready, scene.ready(story.next_rows, {}))
    networks = []
    for name in ("one", "two"):
        scene.update(story.runs / story.date, [ready], tmp_path, tmp_path / name)
        networks.append(sha256(tmp_path / name / "network" / "network.safetensors"))
    assert networks[0] == networks[1] != sha256(story.runs / story.date / "network" / "network.safetensors")
    assert scene.probabilities(tmp_path / "one", [ready]).shape == (len(story.next_rows),)


def test_rows_are_read_as_of_their_moment(story: Learned) -> None:
    scene, rows = ChainScene(story.settings), story.next_rows
    ready = scene.ready(rows, {})
    middle = pc.quantile(rows["timestamp"], 0.5)[0].as_py()
    turned = pc.if_else(pc.greater(rows["timestamp"], middle), pc.subtract(1, rows["label"]), rows["label"])
    other = scene.ready(rows.set_column(rows.schema.get_field_index("label"), "label", pc.cast(turned, pa.int8())), {})
    early = pc.less_equal(ready["timestamp"], middle)
    assert pc.sum(early).as_py() > 0
    assert ready.filter(early).equals(other.filter(early))
    assert not ready.equals(other)


def test_a_day_that_is_learned_late_is_seen_as_on_its_own_date(story: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = ChainScene(story.settings)
    asked: list[tuple[str, ...]] = []
    events = ChainLog.events
    monkeypatch.setattr(ChainLog, "learned_days", lambda _: (story.date, story.next_date, "2099-01-01"))
    monkeypatch.setattr(ChainLog, "events", lambda log, days: asked.append(tuple(days)) or events(log, days))
    scene.ready(story.next_rows, {})
    assert asked == [(story.date,)]


def test_online_and_offline_agree_on_a_release_of_the_daily_job(story: Learned) -> None:
    from offline.rank.torch_scorer import load_torch_scorer

    settings = story.settings.with_values(**{"serve.budget_ms": 30_000.0})
    release = find_release(settings, story.result["release"])
    stores = open_stores(settings)
    try:
        publish(stores, release)
        runtime = Runtime(settings)
        runtime.open(lambda _: stores)
        try:
            client = build_app(runtime).test_client()
            findings = compare(
                settings,
                release,
                lambda request: dict(client.post(request.path, json=request.body).get_json()),
                load_torch_scorer(release),
                25,
            )
        finally:
            runtime.close()
    finally:
        embedded_redis.stop(Workspace(settings).online)
    found = summary(findings)
    assert found["ok"], found


def test_a_day_counts_once_it_is_learned(tmp_path: Path) -> None:
    log = ChainLog(small_settings(tmp_path))
    assert not log.begun()
    kinds = {"reasons": (), "rows_sha256": "", "release": ""}
    state = JobState(
        promoted=(Live(run="first", release="", date=""),),
        fits=(),
        replayed=(),
        finished={
            "2026-01-01": Outcome(outcome="held", learned=(), **kinds),
            "2026-01-02": Outcome(outcome="promoted", learned=("2026-01-02",), **kinds),
            "2026-01-03": Outcome(outcome="held", learned=(), **kinds),
            "2026-01-04": Outcome(outcome="promoted", learned=("2026-01-01", "2026-01-04"), **kinds),
        },
    )
    state.save(log.state)
    assert log.begun() and log.learned_days() == ("2026-01-01", "2026-01-02", "2026-01-04")


def test_rows_of_a_log_without_ratings_or_ids_of_events_are_events(tmp_path: Path) -> None:
    log = ChainLog(small_settings(tmp_path))
    rows = pa.table({"user_id": [7], "item_id": [9], "timestamp": [880_000_000], "label": [1.0], "page": ["home"]})
    event = log.as_events(rows).to_pylist()[0]
    assert event == {
        "user_id": 7, "item_id": 9, "timestamp": 880_000_000, "rating": None, "label": 1, "event_id": "7|9|880000000"
    }  # fmt: skip
    with pytest.raises(DataError, match="item_id"):
        log.as_events(rows.drop_columns(["item_id"]))
    with pytest.raises(DataError, match="user_id"):
        log.as_events(rows.set_column(0, "user_id", pa.array(["x"])))
    assert np.dtype(log.as_events(rows)["label"].to_numpy().dtype) == np.int8


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("user_id", None, "row 1: 'user_id' is empty"),
        ("timestamp", None, "row 1: 'timestamp' is empty"),
        ("timestamp", 1_767_312_000_000, "row 1: 'timestamp' is 1767312000000, no unix seconds"),
        ("timestamp", 1_767_312_000 + 3 * 86_400, "after 2026-01-02"),
    ],
)
def test_a_malformed_row_of_a_day_is_refused_by_its_place(column: str, value: int | None, says: str) -> None:
    good = {
        "user_id": [1, 2],
        "item_id": [1, 2],
        "timestamp": [1_767_312_000, 1_767_312_000 - 9 * 86_400],
        "label": [0, 1],
    }
    check_events(pa.table(good), "2026-01-02")  # late events are welcome
    good[column][1] = value  # type: ignore[call-overload]
    with pytest.raises(DataError, match=says):
        check_events(pa.table(good), "2026-01-02")


def test_rows_come_from_the_dataset_by_day(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    events = events_of(settings)
    dates = dates_of(events["timestamp"].to_numpy())
    date = str(max(dates))
    rows = events.filter(pa.array(dates == date))
    assert is_chain(settings) and not is_chain(settings.with_values(**{"features.spec": "repair_shop"}))
    assert len(read_table(history_of(settings, None, date))) == len(events) - len(rows)
    archive = DayArchive(tmp_path / "days")
    found = read_table(day_of(settings, archive, date, None) or tmp_path)
    assert found["event_id"].to_pylist() == [str(position) for position in rows["position"].to_pylist()]
    with pytest.raises(DataUnavailable, match="its days are"):
        day_of(settings, archive, "2031-01-01", None)
    with pytest.raises(DataUnavailable, match="--until"):
        history_of(settings, None)
