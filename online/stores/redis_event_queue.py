"""`EventQueue` on the stream that `append_events` writes: a consumer group of Redis, made when it is first asked for.

Redis keeps who was handed what in the stream itself, append-only file included, so a worker or a server that dies loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from data_exchange_center.errors import StoreError
from online.stores.event_queue import EventQueue
from online.stores.ports import Event
from online.stores.redis_keys import key
from online.stores.redis_link import RedisLink

GROUP = "archive"
TIMEOUT_S = 30.0
PAGE = 1000  # positions of one command

FORGET = """
-- KEYS stream; ARGV group, the first position that stays by its age: never one that is not confirmed, or not handed out yet
local stays = ARGV[2]
local function before(a, b)
  local am, an = string.match(a, '(%d+)-?(%d*)')
  local bm, bn = string.match(b, '(%d+)-?(%d*)')
  if am ~= bm then return tonumber(am) < tonumber(bm) end
  return tonumber('0' .. an) < tonumber('0' .. bn)
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local at = {}
  for place = 1, #group, 2 do at[group[place]] = group[place + 1] end
  local oldest = redis.call('XPENDING', KEYS[1], at['name'])[2]
  local limit = oldest or at['last-delivered-id']
  if before(limit, stays) then stays = limit end
end
return redis.call('XTRIM', KEYS[1], 'MINID', stays)
"""


class RedisEventQueue(EventQueue):
    """See the module's docstring."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._made: set[str] = set()

    def take(self, scene: str, worker: str, limit: int, wait: float) -> list[tuple[str, Event]]:
        stream = self._stream(scene)
        block = ("BLOCK", max(1, round(1000 * wait))) if wait > 0 else ()
        command = ("XREADGROUP", "GROUP", GROUP, worker, "COUNT", limit, *block, "STREAMS", stream, ">")
        answer = self._one(scene, command, TIMEOUT_S + wait)
        return _events(answer[0][1]) if answer else []

    def take_over(self, scene: str, worker: str, limit: int, idle: float) -> list[tuple[str, Event]]:
        stream = self._stream(scene)
        command = ("XAUTOCLAIM", stream, GROUP, worker, max(0, round(1000 * idle)), "0-0", "COUNT", limit)
        answer = self._one(scene, command, TIMEOUT_S)
        return _events([entry for entry in answer[1] if entry and entry[1]])

    def still_mine(self, scene: str, worker: str, positions: Sequence[str]) -> set[str]:
        if not positions:
            return set()
        wanted, found, start = set(positions), set[str](), positions[0]
        while True:
            command = ("XPENDING", self._stream(scene), GROUP, start, positions[-1], PAGE, worker)
            page = self._one(scene, command, TIMEOUT_S)
            found |= wanted.intersection(entry[0].decode() for entry in page)
            if len(page) < PAGE:
                return found
            start = f"({page[-1][0].decode()}"

    def confirm(self, scene: str, positions: Sequence[str]) -> None:
        stream = self._stream(scene)
        for start in range(0, len(positions), PAGE):
            self._one(scene, ("XACK", stream, GROUP, *positions[start : start + PAGE]), TIMEOUT_S)

    def waiting(self, scene: str) -> tuple[int, int]:
        for entry in self._one(scene, ("XINFO", "GROUPS", self._stream(scene)), TIMEOUT_S):
            group = dict(zip(entry[::2], entry[1::2], strict=True))
            if group[b"name"] == GROUP.encode():
                last = group[b"last-delivered-id"].decode()
                return self._after(scene, last), int(group[b"pending"])
        return 0, 0

    def forget(self, scene: str, before: float) -> int:
        moment = f"{max(0, round(1000 * before))}-0"
        return int(self._one(scene, ("EVAL", FORGET, 1, self._stream(scene), GROUP, moment), TIMEOUT_S))

    def _after(self, scene: str, position: str) -> int:
        count, start = 0, f"({position}"
        while page := self._link.one(("XRANGE", self._stream(scene), start, "+", "COUNT", PAGE), TIMEOUT_S):
            count, start = count + len(page), f"({page[-1][0].decode()}"
        return count

    def _stream(self, scene: str) -> bytes:
        return key(scene, "events")

    def _one(self, scene: str, command: tuple[Any, ...], timeout: float) -> Any:
        if scene not in self._made:
            self._make(scene)
        try:
            return self._link.one(command, timeout)
        except StoreError as error:
            if "NOGROUP" not in error.message:
                raise
            self._make(scene)  # the store was emptied since
            return self._link.one(command, timeout)

    def _make(self, scene: str) -> None:
        try:
            self._link.one(("XGROUP", "CREATE", self._stream(scene), GROUP, "0", "MKSTREAM"), TIMEOUT_S)
        except StoreError as error:
            if "BUSYGROUP" not in error.message:
                raise
        self._made.add(scene)


def _events(entries: Sequence[Any]) -> list[tuple[str, Event]]:
    return [(position.decode(), Event(**json.loads(fields[1]))) for position, fields in entries]
