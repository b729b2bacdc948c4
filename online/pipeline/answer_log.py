"""Keeps each answered list under its request id, and what users were shown by it, without the answer waiting for it.

A bounded queue and one thread: when the store is slower than the answers come, lists are dropped and counted; serving
comes first.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from data_exchange_center.errors import StoreError
from online.pipeline.query import Answer
from online.stores.ports import Id, ShownList, UserStore

log = logging.getLogger("marquee.answers")

CAPACITY = 4096
BATCH = 512
GATHER_SECONDS = 1.0
HURRIED_SECONDS = 0.02  # where the next answer of the user should know of this one
TIMEOUT = 1.0

Entry = tuple[str, Id, str, int, Answer, bool]


class AnswerLog:
    """The background writer of one process.

    Args:
        users: where lists are kept (`log_answers`).
        scene: of the server.
        counted: called with ("kept" | "dropped" | "failed", how many).
        lists: keep the lists. shown: note what users were shown (`serve.suppress_impressions_hours`).
    """

    def __init__(
        self,
        users: UserStore,
        scene: str,
        counted: Callable[[str, int], None],
        *,
        lists: bool = True,
        shown: bool = False,
    ) -> None:
        self._users, self._scene, self._counted = users, scene, counted
        self._lists, self._shown = lists, shown
        self._gather = HURRIED_SECONDS if shown else GATHER_SECONDS
        self._queue: queue.Queue[Entry | None] = queue.Queue(CAPACITY)
        self._failing = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answer-log", daemon=True)
        self._thread.start()

    def put(
        self, request_id: str, user_id: Id, release: str, timestamp: int, answer: Answer, *, shown: bool = True
    ) -> None:
        """Hands over one answered list; never waits.

        Args:
            shown: whether the user sees it; an explained list is looked at by somebody else.
        """
        try:
            self._queue.put_nowait((request_id, user_id, release, timestamp, answer, shown))
        except queue.Full:
            self._counted("dropped", 1)

    def close(self, timeout: float = 5.0) -> None:
        """Writes what is queued, then ends the thread."""
        self._ending.set()
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            log.warning("answers that were not kept at the end: %d", self._queue.qsize())
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.get()]
            self._ending.wait(self._gather)  # one write for many answers
            while len(batch) < BATCH:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            entries = [entry for entry in batch if entry is not None]
            ended = len(entries) < len(batch)
            if entries:
                self._write(entries)

    def _write(self, entries: list[Entry]) -> None:
        answers = {entry[0]: content(*entry[1:5]) for entry in entries} if self._lists else {}
        seen = [ShownList(entry[1], entry[4].now, entry[4].item_ids) for entry in entries if entry[5] and self._shown]
        try:
            self._users.note_shown(self._scene, seen, TIMEOUT)
            self._users.log_answers(self._scene, answers, TIMEOUT)
        except StoreError as error:
            if not self._failing:
                log.warning("answers cannot be kept: %s", error.message)
            self._failing = True
            self._counted("failed", len(entries))
        else:
            self._failing = False
            self._counted("kept", len(entries))


def content(user_id: Id, release: str, timestamp: int, answer: Answer) -> dict[str, Any]:
    """What is kept of an answer; an item's place in `items` is its position. `explored`: [place, propensity] of each such item."""
    explored = {"explored": [list(one) for one in answer.explored.items()]} if answer.explored else {}
    return {
        "user_id": user_id,
        "release": release,
        "timestamp": timestamp,
        "items": answer.item_ids,
        "scores": [round(score, 6) for score in answer.score.tolist()],
        **explored,
    }
