"""What the job asks of the online side, which it reaches through programs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_exchange_center.errors import DataError
from data_exchange_center.settings import Settings
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import Workspace, read_json, sha256
from offline.incremental import delivery
from offline.incremental.delivery import Released
from offline.incremental.state import JobState, Live
from offline.models.ranker import WEIGHTS_FILE
from offline.rank.click_run import NETWORK
from tests.factories import make_settings

KNOWN = Vocabulary("brand", ("a", "b"), 10)


class Online:
    """Stands for the programs: what they are asked is kept, and they answer as they would."""

    def __init__(self, live: str | None, tokens: Sequence[str] = ()) -> None:
        self.live, self.tokens, self.asked = live, tokens, list[Any]()

    def __call__(self, script: str, arguments: Sequence[str], settings: Settings, timeout: float) -> dict[str, Any]:
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        if "--tokens" in given:
            self.asked.append(read_json(Path(given["--tokens"])))
        if self.live is None:
            return {"live": None, "features": {}}
        if "--out" in given:
            Vocabulary("brand", tuple(self.tokens), 10).save(Path(given["--out"]))
        return {"live": self.live, "features": {"brand": {}}}


def state() -> JobState:
    promoted = tuple(Live(run=name, release=f"release-{name}", date="") for name in ("one", "two", "three"))
    return JobState(promoted=promoted, fits=(), replayed=())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


def asked(monkeypatch: pytest.MonkeyPatch, online: Online) -> Online:
    monkeypatch.setattr(delivery, "run_program", online)
    return online


def test_after_a_rollback_it_goes_on_from_what_is_live(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, Online("release-two"))
    assert [one.run for one in Released(settings).as_live(state()).promoted] == ["one", "two"]
    asked(monkeypatch, Online("release-three"))
    assert Released(settings).as_live(state()) == state()
    asked(monkeypatch, Online(None))
    assert Released(settings).as_live(state()) == state()


def test_a_release_that_it_did_not_make_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, Online("release-of-somebody"))
    with pytest.raises(DataError, match=r"release-of-somebody .* is live, and the daily job has no run of it"):
        Released(settings).as_live(state())


def test_online_numbers_hold_and_only_new_tokens_are_asked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = asked(monkeypatch, Online("release-three", ("a", "b", "seen online", "c")))
    grown = {"brand": KNOWN.grown(["c"]).vocabulary}
    numbered = Released(settings).numbered(grown, {"brand": KNOWN})
    assert online.asked == [{"brand": ["c"]}]
    assert numbered["brand"].tokens == ("a", "b", "seen online", "c") and numbered["brand"].encode("c") == 5


def test_before_the_scene_is_live_the_fit_gives_the_numbers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = asked(monkeypatch, Online(None))
    assert Released(settings).numbered({"brand": KNOWN}, {}) == {"brand": KNOWN}
    assert online.asked == [{"brand": ["a", "b"]}]
    alone = Released(settings.with_values(**{"incremental.publish": False}))
    assert alone.numbered({"brand": KNOWN}, {}) == {"brand": KNOWN} and len(online.asked) == 1
    assert alone.as_live(state()) == state()


def test_what_a_killed_job_made_live_is_its_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, Online("release-four"))
    weights = Workspace(settings).offline / "incremental" / "runs" / "four" / NETWORK / WEIGHTS_FILE
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    found = SimpleNamespace(manifest={"incremental": {"run": "four", "network_sha256": sha256(weights)}})
    monkeypatch.setattr(delivery, "find_release", lambda *_, **__: found)
    assert Released(settings).as_live(state()) == state()
    weights.write_bytes(b"of another training")
    with pytest.raises(DataError, match="has no run of it"):
        Released(settings).as_live(state())
