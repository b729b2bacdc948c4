"""What every user store promises (online/stores/ports.py)."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from data_exchange_center.errors import LockHeld, StoreUnavailable
from data_exchange_center.workspace import Workspace
from online.stores import recent_events, redis_users
from online.stores.embedded_redis import ensure_running
from online.stores.open import open_users
from online.stores.ports import Event, Id, ShownList, UserProfile, UserStore
from tests.contract.backends import Backend

T = 2.0  # seconds
_numbers = itertools.count()


@pytest.fixture
def scene() -> str:
    """A scene that no other test uses."""
    return f"scene_{uuid.uuid4().hex[:8]}"


def profile(user_id: Id, seed: int = 0, terms: tuple[str, ...] = ("Drama", "Film-Noir")) -> UserProfile:
    generator = np.random.default_rng([seed, hash(user_id) & 0xFFFF])
    rows = 7
    return UserProfile(
        user_id=user_id,
        segment="F",
        last_timestamp=893_286_637,
        terms=terms,
        term_weights=generator.random(len(terms), np.float32),
        vector=generator.normal(size=10).astype(np.float32),
        history=generator.integers(0, 1000, rows).astype(np.int32),
        history_labels=generator.integers(0, 2, rows).astype(np.int8),
        history_timestamps=np.sort(generator.integers(874_724_710, 893_286_637, rows)),
        history_values=generator.random(rows, np.float32),
    )


def event(user: Id, item: Id, kind: str = "click", at: int = 100, value: float | None = None, name: str = "") -> Event:
    return Event(name or f"event-{next(_numbers)}", user, item, kind, value, at, "request")


def same(one: UserProfile, other: UserProfile | None) -> bool:
    assert other is not None
    return all(
        value.dtype == getattr(other, name).dtype and np.array_equal(value, getattr(other, name))
        if isinstance(value, np.ndarray)
        else value == getattr(other, name)
        for name, value in vars(one).items()
    )


def test_a_scene_that_never_was_published_has_no_pointer_and_no_users(users: UserStore, scene: str) -> None:
    read = users.read(scene, "r1", 1, T)
    assert (read.live, read.profile, read.interacted, read.last_event) == (None, None, frozenset(), 0)
    assert users.live(scene, T) is None
    assert users.history(scene) == []
    assert users.live_copy(scene) is None


@pytest.mark.parametrize("user_id", [1, -5, 2**62, "1", "Zoë/ü:1", " "])
def test_a_profile_comes_back_as_it_was_written(users: UserStore, scene: str, user_id: Id) -> None:
    written = profile(user_id)
    assert users.write(scene, "r1", [written]) == 1
    assert same(written, users.read(scene, "r1", user_id, T).profile)


def test_a_profile_with_nothing_in_it_comes_back(users: UserStore, scene: str) -> None:
    nothing = UserProfile(
        7, "", 0, (), *(np.empty(0, kind) for kind in (np.float32, np.float32, np.int32, np.int8, np.int64, np.float32))
    )
    users.write(scene, "r1", [nothing])
    assert same(nothing, users.read(scene, "r1", 7, T).profile)


def test_a_number_and_the_same_digits_are_two_users(users: UserStore, scene: str) -> None:
    users.write(scene, "r1", [profile(1, 1), profile("1", 2)])
    assert users.count(scene, "r1") == 2
    assert same(profile(1, 1), users.read(scene, "r1", 1, T).profile)
    assert same(profile("1", 2), users.read(scene, "r1", "1", T).profile)


def test_writing_many_users_counts_them_and_again_changes_nothing(users: UserStore, scene: str) -> None:
    many = [profile(number) for number in range(1000)]
    assert users.write(scene, "r1", many) == 1000
    assert users.write(scene, "r1", iter(many)) == 1000
    assert users.count(scene, "r1") == 1000
    assert same(many[777], users.read(scene, "r1", 777, T).profile)


def test_a_write_that_was_cut_off_goes_on_where_it_was(
    users: UserStore, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_users, "WRITE_BATCH", 10)
    many = [profile(number) for number in range(100)]

    def cut_off(at: int) -> Iterator[UserProfile]:
        yield from many[:at]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        users.write(scene, "r1", cut_off(95), content="these")
    stored = users.written(scene, "r1", "these")
    assert 0 < stored <= 90
    assert stored % 10 == 0
    assert users.written(scene, "r1", "others") == users.written(scene, "r2", "these") == 0
    assert all(same(one, users.read(scene, "r1", one.user_id, T).profile) for one in many[:stored])
    assert users.write(scene, "r1", many[stored:], content="these", start=stored) == 100 - stored
    assert users.written(scene, "r1", "these") == 0, "a whole write leaves nothing to go on with"
    assert users.count(scene, "r1") == 100
    assert all(same(one, users.read(scene, "r1", one.user_id, T).profile) for one in many)


def test_the_memory_of_a_release_is_told(users: UserStore, scene: str) -> None:
    assert users.memory(scene, "r1") == 0
    users.write(scene, "r1", [profile(number) for number in range(200)])
    assert 200 * 100 < users.memory(scene, "r1") < 200 * 2000


def test_dropping_a_half_written_release_forgets_how_far_it_was(
    users: UserStore, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_users, "WRITE_BATCH", 4)
    with pytest.raises(ZeroDivisionError):
        users.write(scene, "r1", (profile(1 // (60 - number)) for number in range(61)), content="these")
    assert users.written(scene, "r1", "these") > 0
    users.drop(scene, "r1")
    assert users.written(scene, "r1", "these") == 0


def test_releases_lie_side_by_side_and_go_one_by_one(users: UserStore, scene: str) -> None:
    users.write(scene, "r1", [profile(1, 1)])
    users.write(scene, "r2", [profile(1, 2)])
    assert users.releases(scene) == ["r1", "r2"]
    users.drop(scene, "r1")
    users.drop(scene, "never-there")
    assert users.read(scene, "r1", 1, T).profile is None
    assert same(profile(1, 2), users.read(scene, "r2", 1, T).profile)
    assert users.releases(scene) == ["r2"]
    assert users.count(scene, "r1") == 0


def test_a_flip_is_seen_by_every_read_and_by_the_copy_on_disk(users: UserStore, scene: str) -> None:
    users.flip(scene, "r1", None)
    assert users.live(scene, T) == users.read(scene, "r1", 1, T).live == users.live_copy(scene) == "r1"
    users.flip(scene, "r2", "r1")
    assert users.live(scene, T) == users.live_copy(scene) == "r2"
    flips = users.history(scene)
    assert [flip.release for flip in flips] == ["r1", "r2"]
    assert abs(flips[-1].at - time.time()) < 60


def test_a_flip_that_expected_something_else_changes_nothing_and_says_what_is_live(
    users: UserStore, scene: str
) -> None:
    users.flip(scene, "r1", None)
    with pytest.raises(LockHeld, match="r1 is live"):
        users.flip(scene, "r3", "r2")
    with pytest.raises(LockHeld, match="r1 is live"):
        users.flip(scene, "r3", None)
    assert users.live(scene, T) == "r1"


def test_flipping_to_what_is_live_already_adds_nothing(users: UserStore, scene: str) -> None:
    users.flip(scene, "r1", None)
    users.flip(scene, "r1", "r1")
    assert [flip.release for flip in users.history(scene)] == ["r1"]


def test_of_many_publishers_at_once_one_flips(users: UserStore, scene: str) -> None:
    users.flip(scene, "r0", None)

    def attempt(number: int) -> bool:
        try:
            users.flip(scene, f"r{number}", "r0")
        except LockHeld:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(1, 9))) == 1
    assert len(users.history(scene)) == 2


def test_an_interaction_is_excluded_at_once_whatever_the_release(users: UserStore, scene: str) -> None:
    assert users.append_events(scene, [event(1, 50), event(1, 60, "dislike", at=300), event(2, 70)], T) == 3
    for release in ("r1", "r2"):
        read = users.read(scene, release, 1, T)
        assert read.interacted == {50, 60}
        assert read.last_event == 300
    assert users.read(scene, "r1", 2, T).interacted == {70}


def test_an_impression_excludes_nothing(users: UserStore, scene: str) -> None:
    users.append_events(scene, [event(1, 50, "impression")], T)
    assert users.read(scene, "r1", 1, T).interacted == frozenset()
    assert len(users.events(scene)) == 1


def test_recent_interactions_come_back_as_the_log_would_tell_them(users: UserStore, scene: str) -> None:
    told = [
        event(1, "a", "click", at=1),
        event(1, "b", "rating", at=2, value=5.0),
        event(1, "c", "rating", at=3, value=3.0),  # not above the settings' 3.0
        event(1, "d", "like", at=4),
        event(1, "a b", "dislike", at=2),  # late
        event(1, "f", "impression", at=9),
    ]
    users.append_events(scene, told, T)
    read = users.read(scene, "r1", 1, T)
    assert [tuple(vars(one).values()) for one in read.recent] == [
        ("a", 1, 1, 1.0),
        ("b", 2, 1, 5.0),
        ("c", 3, 0, 3.0),
        ("d", 4, 1, 1.0),
        ("a b", 2, 0, 0.0),
    ]
    assert read.interacted == {"a", "b", "c", "d", "a b"}
    assert (read.last_event, read.shown) == (4, {})


def test_recent_interactions_are_bounded(users: UserStore, scene: str) -> None:
    users.append_events(scene, [event(1, item, at=item) for item in range(recent_events.RECENT_KEPT + 7)], T)
    recent = users.read(scene, "r1", 1, T).recent
    assert len(recent) == recent_events.RECENT_KEPT
    assert recent[0].item_id == 7


def test_what_was_shown_is_remembered_when_a_setting_asks(users: UserStore, backend: Backend, scene: str) -> None:
    users.append_events(scene, [event(1, 49, "impression", at=100)], T)
    users.note_shown(scene, [ShownList(1, 120, [48])], T)
    settings = backend.settings.with_values(**{"serve.suppress_impressions_hours": 2.0})
    with closing(open_users(settings)) as asked:
        asked.append_events(scene, [event(1, 50, "impression", at=100), event(1, 50, "impression", at=90)], T)
        asked.note_shown(scene, [ShownList(1, 120, [51, 52]), ShownList("x", 130, ["a"]), ShownList(1, 80, [])], T)
        assert asked.read(scene, "r1", 1, T).shown == {50: 100, 51: 120, 52: 120}
        assert asked.read(scene, "r1", "x", T).shown == {"a": 130}
        asked.note_shown(scene, [ShownList(1, 200 + at, [1000 + at]) for at in range(recent_events.SHOWN_KEPT)], T)
        shown = asked.read(scene, "r1", 1, T).shown
    assert len(shown) == recent_events.SHOWN_KEPT
    assert min(shown.values()) == 200


def test_an_event_counts_once_however_often_it_is_sent(users: UserStore, scene: str) -> None:
    twice = event(1, 50)
    assert users.append_events(scene, [twice, twice, event(1, 51)], T) == 2
    assert users.append_events(scene, [twice], T) == 0
    assert len(users.events(scene)) == 2


def test_an_event_counts_once_when_many_send_it_at_once(users: UserStore, scene: str) -> None:
    shared = [event(1, item) for item in range(20)]
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: users.append_events(scene, shared, T), range(16)))
    assert sum(added) == 20
    assert len(users.events(scene)) == 20


def test_events_are_read_back_in_order_and_in_pages(users: UserStore, scene: str) -> None:
    sent = [event("Zoë", f"item/{number}é", "rating", at=number, value=number / 2) for number in range(25)]
    users.append_events(scene, sent, T)
    found: list[Event] = []
    after = ""
    while page := users.events(scene, after, 10):
        found += [read for _, read in page]
        after = page[-1][0]
    assert found == sent


def test_no_events_is_no_error(users: UserStore, scene: str) -> None:
    assert users.append_events(scene, [], T) == 0


def test_a_blocked_item_is_told_to_everybody_until_it_is_let_in_again(users: UserStore, scene: str) -> None:
    assert users.block(scene, [5, 6], T) == 2
    assert users.block(scene, [6], T) == 0
    assert users.read(scene, "r1", 1, T).blocked == users.read(scene, "r2", "x", T).blocked == {5, 6}
    assert users.block(scene, [5], T, blocked=False) == 1
    assert users.block(scene, [], T) == 0
    assert users.read(scene, "r1", 1, T).blocked == users.blocked(scene, T) == {6}


def test_a_number_and_the_same_digits_are_two_blocked_items(users: UserStore, scene: str) -> None:
    users.block(scene, [5, "5", "Zoë/1"], T)
    users.block(scene, [5], T, blocked=False)
    assert users.blocked(scene, T) == users.blocked_copy(scene) == {"5", "Zoë/1"}


def test_another_process_knows_the_blocked_items_by_its_next_read_and_without_the_store(
    users: UserStore, backend: Backend, scene: str
) -> None:
    other = open_users(backend.settings)
    try:
        assert other.read(scene, "r1", 1, T).blocked == frozenset()
        for blocked in ({1, 2}, {1, 2, 3}):
            users.block(scene, blocked, T)
            assert other.read(scene, "r1", 1, T).blocked == blocked
            assert other.blocked_copy(scene) == users.blocked_copy(scene) == blocked
        users.block(scene, [4], T)
        assert other.blocked_copy(scene) == {1, 2, 3, 4}  # from the file; nothing was asked
    finally:
        other.close()


def test_looking_at_the_pointer_brings_the_copy_of_the_blocked_items_up_to_date(
    users: UserStore, backend: Backend, scene: str, tmp_path: Path
) -> None:
    elsewhere = backend.settings.with_values(**{"stores.user_store": address(backend), "data.store": str(tmp_path)})
    other = open_users(elsewhere)
    try:
        users.block(scene, [7], T)
        assert other.blocked_copy(scene) == frozenset()
        other.live(scene, T)
        assert other.blocked_copy(scene) == {7}
    finally:
        other.close()


def address(backend: Backend) -> str:
    """The URL of the backend's Redis, the embedded one included."""
    if backend.server is not None:
        return backend.settings.stores.user_store
    return f"unix://{ensure_running(Workspace(backend.settings).online)}"


def test_scenes_do_not_meet(users: UserStore, scene: str) -> None:
    users.flip(scene, "r1", None)
    users.write(scene, "r1", [profile(1)])
    users.append_events(scene, [event(1, 50)], T)
    users.block(scene, [50], T)
    other = users.read(scene + "_other", "r1", 1, T)
    assert (other.live, other.profile, other.interacted, other.blocked) == (None, None, frozenset(), frozenset())


def test_an_answered_list_is_found_under_its_request(users: UserStore, scene: str) -> None:
    answer = {"user_id": "Zoë", "release": "r1", "timestamp": 1, "items": [1, 2], "scores": [0.5, 0.25]}
    users.log_answers(scene, {"one": answer, "two": {**answer, "user_id": 2}}, T)
    assert users.answer(scene, "one", T) == answer
    assert users.answer(scene, "two", T) == {**answer, "user_id": 2}
    assert users.answer(scene, "three", T) is None


def test_only_the_newest_answers_are_kept(users: UserStore, scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_users, "ANSWERS_KEPT", 3)
    for number in range(5):
        users.log_answers(scene, {f"request-{number}": {"user_id": number}}, T)
        users.log_answers(scene, {f"request-{number}": {"user_id": number}}, T)  # sent again: no second place
    kept = [number for number in range(5) if users.answer(scene, f"request-{number}", T)]
    assert kept == [2, 3, 4]


def test_threads_get_each_their_own_user(users: UserStore, scene: str) -> None:
    users.write(scene, "r1", [profile(number) for number in range(64)])

    def right(number: int) -> bool:
        return same(profile(number % 64), users.read(scene, "r1", number % 64, T).profile)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, range(400)))


def test_no_time_left_is_unavailable(users: UserStore, scene: str) -> None:
    with pytest.raises(StoreUnavailable):
        users.read(scene, "r1", 1, 0.0)
    users.ping(T)


def test_a_server_that_hangs_costs_the_timeout_and_no_answer_goes_astray(
    backend: Backend, users: UserStore, scene: str
) -> None:
    if backend.server is None:
        pytest.skip("the embedded server is paused in tests/unit/stores/test_embedded_redis.py")
    users.write(scene, "r1", [profile(1), profile(2)])
    with backend.server.paused():
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            users.read(scene, "r1", 1, 0.1)
        assert time.perf_counter() - started < 1.0
        with pytest.raises(StoreUnavailable):
            users.ping(0.05)
    assert same(profile(2), users.read(scene, "r1", 2, T).profile)
