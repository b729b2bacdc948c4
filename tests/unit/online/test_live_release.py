"""Following the release pointer without letting requests wait."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from data_exchange_center.errors import ReleaseError, StoreUnavailable
from online.pipeline import live_release
from online.pipeline.live_release import KEEP, LiveRelease


class Pointer:
    def __init__(self, live: str | None) -> None:
        self.live, self.away = live, False

    def __call__(self) -> str | None:
        if self.away:
            raise StoreUnavailable("redis: gone")
        return self.live


def view(release: str) -> Any:
    return SimpleNamespace(release=SimpleNamespace(id=release))


def until(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def in_use(follower: LiveRelease) -> str | None:
    current = follower.current()
    return current.release.id if current is not None else None


def test_nothing_published_is_a_reason_and_no_error() -> None:
    follower = LiveRelease(Pointer(None), view, 1.0)
    assert follower.refresh() is None
    assert "make publish" in follower.reason


def test_a_flip_is_followed_in_the_background() -> None:
    pointer = Pointer("a")
    follower = LiveRelease(pointer, view, 0.01)
    follower.start()
    try:
        assert in_use(follower) == "a"
        pointer.live = "b"
        until(lambda: in_use(follower) == "b")
    finally:
        follower.stop()


def test_requests_get_the_old_release_while_the_new_one_loads() -> None:
    pointer, gate = Pointer("a"), threading.Event()

    def load(release: str) -> Any:
        if release == "b":
            gate.wait(5)
        return view(release)

    follower = LiveRelease(pointer, load, 0.01)
    follower.start()
    try:
        pointer.live = "b"
        time.sleep(0.05)
        assert in_use(follower) == "a"
        gate.set()
        until(lambda: in_use(follower) == "b")
    finally:
        follower.stop()


def test_a_release_that_does_not_load_leaves_the_old_one_and_says_why() -> None:
    pointer = Pointer("a")

    def load(release: str) -> Any:
        if release == "broken":
            raise ReleaseError("model.onnx: checksum differs")
        return view(release)

    heard: list[tuple[str, bool]] = []
    follower = LiveRelease(pointer, load, 0.01, lambda release, loaded: heard.append((release, loaded)))
    follower.refresh()
    pointer.live = "broken"
    follower.refresh()
    assert in_use(follower) == "a"
    assert "model.onnx: checksum differs" in follower.reason
    pointer.live = "a"
    follower.refresh()
    assert heard == [("a", True), ("broken", False)]


def test_a_release_that_failed_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_release, "RETRY_SECONDS", 0.05)
    attempts: list[str] = []

    def load(release: str) -> Any:
        attempts.append(release)
        if len(attempts) < 2:
            raise ReleaseError("not all there yet")
        return view(release)

    follower = LiveRelease(Pointer("a"), load, 0.005)
    follower.start()
    try:
        until(lambda: in_use(follower) == "a")
        assert attempts == ["a", "a"]
    finally:
        follower.stop()


def test_a_pointer_that_cannot_be_read_changes_nothing() -> None:
    pointer = Pointer("a")
    follower = LiveRelease(pointer, view, 1.0)
    follower.refresh()
    pointer.away = True
    assert follower.refresh() is not None
    assert in_use(follower) == "a"


def test_going_back_needs_no_loading() -> None:
    pointer, loads = Pointer("a"), []

    def load(release: str) -> Any:
        loads.append(release)
        return view(release)

    follower = LiveRelease(pointer, load, 1.0)
    for live in ("a", "b", "a"):
        pointer.live = live
        follower.refresh()
    assert in_use(follower) == "a"
    assert loads == ["a", "b"]


def test_only_the_last_few_releases_are_kept() -> None:
    pointer, loads = Pointer("0"), []

    def load(release: str) -> Any:
        loads.append(release)
        return view(release)

    follower = LiveRelease(pointer, load, 1.0)
    for live in [*map(str, range(KEEP + 1)), "0"]:
        pointer.live = live
        follower.refresh()
    assert loads.count("0") == 2


def test_a_request_that_saw_another_release_makes_the_follower_look_at_once() -> None:
    pointer = Pointer("a")
    follower = LiveRelease(pointer, view, 60.0)
    follower.start()
    try:
        pointer.live = "b"
        follower.moved("b")
        until(lambda: in_use(follower) == "b")
    finally:
        follower.stop()
