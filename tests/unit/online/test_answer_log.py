"""Keeping answered lists in the background."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from data_exchange_center.errors import StoreUnavailable
from online.pipeline import answer_log
from online.pipeline.answer_log import AnswerLog
from online.pipeline.query import Answer
from online.stores.ports import ShownList

ANSWER = Answer(
    rows=np.array([1, 0], np.int32),
    item_ids=["b", "a"],
    score=np.array([0.75, 0.5], np.float32),
    like=np.array([0.5, 0.25], np.float32),
    cold_start=False,
    now=5,
    scored=2,
)


class Users:
    """Keeps what it is given; waits while `gate` is closed, fails while `away`."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.away = False
        self.shown: list[ShownList] = []

    def note_shown(self, scene: str, lists: Sequence[ShownList], timeout: float) -> None:
        self.shown += lists

    def log_answers(self, scene: str, answers: Mapping[str, Mapping[str, Any]], timeout: float) -> None:
        self.gate.wait(5)
        if self.away:
            raise StoreUnavailable("gone")
        self.kept.update(answers)


def make(users: Any) -> tuple[AnswerLog, Counter[str]]:
    counted: Counter[str] = Counter()
    return AnswerLog(users, "scene", lambda outcome, count: counted.update({outcome: count})), counted


def test_positions_and_scores_are_kept_under_the_request_id() -> None:
    users = Users()
    log, counted = make(users)
    log.put("r1", "u", "release", 7, ANSWER)
    log.close()
    assert users.kept == {
        "r1": {"user_id": "u", "release": "release", "timestamp": 7, "items": ["b", "a"], "scores": [0.75, 0.5]}
    }
    assert counted == {"kept": 1}


def test_a_slow_store_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_log, "CAPACITY", 10)
    users = Users()
    users.gate.clear()
    log, counted = make(users)
    started = time.perf_counter()
    for number in range(2000):
        log.put(str(number), "u", "release", 7, ANSWER)
    assert time.perf_counter() - started < 1.0
    assert counted["dropped"] > 0
    users.gate.set()
    log.close()
    assert counted["dropped"] + counted["kept"] == 2000


def test_a_store_that_is_away_is_counted_and_serving_goes_on() -> None:
    users = Users()
    users.away = True
    log, counted = make(users)
    log.put("r1", "u", "release", 7, ANSWER)
    log.close()
    assert counted == {"failed": 1}
