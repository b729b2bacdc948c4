"""Publishing and rolling back, uninterrupted."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest

from data_exchange_center.errors import LockHeld, ReleaseError, StoreError
from data_exchange_center.release import MANIFEST, Release, list_releases
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, write_json
from offline_to_online import parts
from offline_to_online.journal import journal_path, read_journal
from offline_to_online.lock import publish_lock
from offline_to_online.publish import publish, rollback
from offline_to_online.rank.s1_feature_to_feast import sync_features
from offline_to_online.rank.s2_model_to_triton import sync_model
from offline_to_online.recall.s1_user_to_redis import sync_users
from offline_to_online.recall.s2_item_to_es import sync_items
from offline_to_online.retention import REMOVED, kept_releases
from online.stores.open import open_stores
from online.stores.ports import Flip
from tests.factories import make_release, make_scorer_release
from tests.unit.sync.whole import live, serves


def release_of(settings: Settings, seed: int) -> Release:
    return make_release(Workspace(settings).root.parent, seed=seed, settings=settings)


def test_publishing_makes_the_newest_release_live_in_every_store(settings: Settings) -> None:
    older, newer = release_of(settings, 0), release_of(settings, 1)
    first = publish(settings, older.id)
    assert (first["release"], first["previous"], first["flipped"]) == (older.id, None, True)
    second = publish(settings)
    assert (second["release"], second["previous"], second["flipped"]) == (newer.id, older.id, True)
    assert sorted(second["stores"]) == ["features", "items", "scorer", "users"]
    assert live(settings) == newer.id
    assert serves(settings, newer)
    assert serves(settings, older), "requests in flight still name it"
    json.dumps(second)


def test_publishing_what_is_live_repairs_it_and_does_not_flip(settings: Settings) -> None:
    release = release_of(settings, 0)
    publish(settings)
    stores = open_stores(settings)
    stores.users.drop(settings.scene, release.id)
    stores.close()
    assert not serves(settings, release)
    again = publish(settings)
    assert (again["flipped"], again["previous"]) == (False, None)
    assert serves(settings, release)


def test_rollback_goes_back_and_a_second_one_returns(settings: Settings) -> None:
    older, newer = release_of(settings, 0), release_of(settings, 1)
    publish(settings, older.id)
    publish(settings, newer.id)
    back = rollback(settings)
    assert (back["release"], back["previous"], back["flipped"]) == (older.id, newer.id, True)
    assert live(settings) == older.id
    assert rollback(settings)["release"] == newer.id
    named = rollback(settings, older.id)
    assert (named["release"], live(settings)) == (older.id, older.id)


def test_rollback_without_a_release_before_is_refused(settings: Settings) -> None:
    with pytest.raises(ReleaseError, match="nothing is live"):
        rollback(settings)
    release = release_of(settings, 0)
    publish(settings)
    with pytest.raises(ReleaseError, match=f"{release.id} is live and no other"):
        rollback(settings)


def test_rollback_to_a_release_that_a_store_has_lost_is_refused(settings: Settings) -> None:
    older, newer = release_of(settings, 0), release_of(settings, 1)
    publish(settings, older.id)
    publish(settings, newer.id)
    stores = open_stores(settings)
    stores.scorer.drop(older.id)
    stores.close()
    with pytest.raises(ReleaseError, match="publish it instead"):
        rollback(settings)
    assert live(settings) == newer.id


def test_a_dry_run_tells_the_plan_and_changes_nothing(settings: Settings) -> None:
    release = release_of(settings, 0)
    told = publish(settings, dry_run=True)
    assert told["plan"][0] == "users: load and verify"
    assert f"flip from None to {release.id}" in told["plan"]
    stores = open_stores(settings)
    assert stores.users.live(settings.scene, 1) is None
    assert [stores.users.releases(settings.scene), stores.items.releases(), stores.features.releases()] == [[], [], []]
    stores.close()
    assert read_journal(settings) is None


@pytest.mark.parametrize("part", ["users", "items", "features", "scorer"])
def test_a_store_that_reads_back_something_else_stops_the_publish(
    settings: Settings, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = release_of(settings, 0), release_of(settings, 1)
    publish(settings, older.id)
    names = {"users": "verify_users", "items": "verify_items", "features": "verify_features", "scorer": "verify_model"}

    def wrong(release: Release, store: object) -> dict[str, object]:
        raise StoreError(f"{part}: something else came back")

    with monkeypatch.context() as patched:
        patched.setattr(parts, names[part], wrong)
        with pytest.raises(StoreError, match="something else"):
            publish(settings, newer.id)
    assert live(settings) == older.id
    assert serves(settings, older)
    resumed = publish(settings, newer.id)
    assert live(settings) == newer.id
    done_before = list(names)[: list(names).index(part)]
    assert [name for name, result in resumed["stores"].items() if result.get("resumed")] == done_before
    assert not journal_path(settings).exists()


def test_old_releases_go_and_the_newest_stay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline_to_online.retention.GRACE_S", 0.0)
    releases = [release_of(settings, seed) for seed in range(3)]
    dropped = [publish(settings, release.id)["dropped"] for release in releases]
    assert dropped == [[], [], [releases[0].id]]
    stores = open_stores(settings)
    kept = [release.id for release in releases[1:]]
    assert stores.users.releases(settings.scene) == stores.items.releases() == kept
    assert stores.features.releases() == stores.scorer.releases() == kept
    stores.close()


def of_the_daily_job(settings: Settings, seed: int) -> Release:
    made = release_of(settings, seed)
    write_json(made.path / MANIFEST, {**made.manifest, "incremental": {"date": f"2026-01-0{seed + 1}"}})
    return made


def test_releases_of_promoted_days_leave_the_disk_and_those_that_a_store_names_stay(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline_to_online.retention.GRACE_S", 0.0)
    one_stays = settings.with_values(**{"incremental.keep_releases": 1})
    by_hand, *days = [release_of(settings, 9), *(of_the_daily_job(settings, day) for day in range(4))]
    for one in days[:2]:
        publish(one_stays, one.id)
    assert publish(one_stays, days[2].id)["removed"] == [days[0].id], "of two in the stores none goes"
    assert list_releases(settings) == [by_hand.id, *(one.id for one in days[1:])], "the newest waits to be published"
    assert rollback(one_stays)["release"] == days[1].id
    assert publish(one_stays, days[1].id)["removed"] == [], "newer than what is live"
    assert [path.name for path in Workspace(settings).releases.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_publisher_had_begun_to_remove_is_removed_and_never_listed(settings: Settings) -> None:
    release = release_of(settings, 0)
    begun = release.path.with_name(f".older{REMOVED}")
    shutil.copytree(release.path, begun)
    assert list_releases(settings) == [release.id]
    publish(settings)
    assert not begun.exists() and release.path.exists()


def test_the_live_release_and_those_before_it_are_kept_for_as_long_as_requests_may_name_them() -> None:
    flips = [Flip("a", 0), Flip("b", 100), Flip("c", 200), Flip("b", 300), Flip("d", 1000), Flip("e", 1010)]
    assert kept_releases(flips, 2, now=1200, grace=60) == ["e", "d"]
    assert kept_releases(flips, 2, now=1020, grace=60) == ["e", "d", "b"]  # b stopped being live at 1000
    assert kept_releases(flips, 1, now=1200, grace=60) == ["e"]
    assert kept_releases(flips, 4, now=1200, grace=60) == ["e", "d", "b", "c"]
    assert kept_releases([], 3, now=0, grace=60) == []


def test_two_publishers_at_once_one_wins_and_the_other_says_who_holds_the_lock(settings: Settings) -> None:
    release = release_of(settings, 0)
    with publish_lock(settings, "publish something-else"):
        for work in (publish, rollback, sync_users, sync_items, sync_features, sync_model):
            with pytest.raises(LockHeld, match=r"process \d+ on .* \(publish something-else\)"):
                work(settings)
    assert publish(settings)["release"] == release.id


def test_of_publishers_that_start_together_every_one_wins_or_is_told(settings: Settings) -> None:
    release_of(settings, 0)
    told: list[str] = []

    def attempt() -> None:
        try:
            told.append(publish(settings)["release"])
        except LockHeld:
            told.append("held")

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 3
    assert set(told) - {"held"} == {live(settings)}


def test_an_altered_release_is_not_published(settings: Settings) -> None:
    release = release_of(settings, 0)
    with (release.path / "tables/users.parquet").open("r+b") as file:
        file.write(b"PARX")
    with pytest.raises(ReleaseError, match="checksum"):
        publish(settings)
    assert live(settings) is None


def test_the_steps_load_and_verify_on_their_own_and_leave_the_pointer(settings: Settings) -> None:
    release = release_of(settings, 0)
    assert sync_users(settings)["users"] == 40
    assert sync_items(settings)["overlap"] == 1.0
    assert sync_features(settings)["verified_items"] == 90
    assert sync_model(settings)["max_abs_delta"] <= 1e-5
    assert serves(settings, release)
    assert live(settings) is None


def scorer_settings(settings: Settings) -> Settings:
    """The same store, the scene of rows; every store but the pointer's and the scorer is away."""
    away = {"stores.item_index": "http://127.0.0.1:9", "stores.feature_store": "redis://127.0.0.1:9"}
    return settings.with_values(**{"features.spec": "criteo", **away})


def test_a_scorer_release_goes_to_the_scorer_alone_and_flips_its_own_scene(settings: Settings) -> None:
    chain, rows = release_of(settings, 0), scorer_settings(settings)
    publish(settings)
    older, newer = (make_scorer_release(Workspace(rows).root.parent, seed, rows) for seed in range(2))
    assert publish(rows, older.id)["dropped"] == []
    result = publish(rows)
    assert (result["release"], result["previous"], result["flipped"]) == (newer.id, older.id, True)
    assert list(result["stores"]) == ["scorer"]
    assert result["stores"]["scorer"]["verified"] == 50 * 4
    assert (live(settings), live(settings.with_values(**{"features.spec": "criteo"}))) == (chain.id, newer.id)
    assert rollback(rows)["release"] == older.id
    assert serves(settings, chain)


def test_a_scene_is_not_rolled_back_to_a_release_of_another(settings: Settings) -> None:
    chain, rows = release_of(settings, 0), scorer_settings(settings)
    publish(settings)
    other = make_scorer_release(Workspace(rows).root.parent, 0, rows)
    publish(rows)
    with pytest.raises(ReleaseError, match=f"{other.id} is a release of scene criteo"):
        rollback(settings, other.id)
    assert live(settings) == chain.id


def test_old_scorer_releases_go_and_other_scenes_are_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline_to_online.retention.GRACE_S", 0.0)
    chain, rows = release_of(settings, 0), scorer_settings(settings)
    publish(settings)
    made = [make_scorer_release(Workspace(rows).root.parent, seed, rows) for seed in range(3)]
    assert [publish(rows, release.id)["dropped"] for release in made] == [[], [], [made[0].id]]
    stores = open_stores(settings)
    assert stores.scorer.releases() == sorted([chain.id, made[1].id, made[2].id])
    stores.close()


def test_a_scorer_that_answers_something_else_is_not_published(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = scorer_settings(settings)
    make_scorer_release(Workspace(rows).root.parent, 0, rows)
    monkeypatch.setattr(
        "online.stores.onnx_scorer.OnnxScorer.score",
        lambda self, release, inputs, timeout: {
            name: values + np.float32(1e-3) * (np.arange(len(values)) == 7)
            for name, values in self._open.get(release).score(inputs).items()
        },
    )
    with pytest.raises(StoreError, match=r"row 7 of sample/rows\.parquet differs by 0\.001"):
        publish(rows)
    assert live(settings.with_values(**{"features.spec": "criteo"})) is None
