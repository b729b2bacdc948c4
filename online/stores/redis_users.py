"""`UserStore` on Redis (6.2 or later).

    marquee:<scene>:live                 the live release
    marquee:<scene>:flips                list of {"release", "at"}, oldest first
    marquee:<scene>:users:<release>      hash: user -> profile (profile_codec.py); UNLINK ends a release, and one that never goes
                                         live expires after UNPUBLISHED_SECONDS
    marquee:<scene>:written:<release>    while a release is written: of what, and how many profiles are there already
    marquee:<scene>:user:<user>          hash: item -> timestamp of the newest interaction
    marquee:<scene>:recent:<user>        list: the newest interactions, in the order in which they came (recent_events.py)
    marquee:<scene>:shown:<user>         sorted set: items by the time at which they were last shown; only when a setting asks
    marquee:<scene>:events               stream of events, in the order in which they came
    marquee:<scene>:event-ids            set of the events' ids
    marquee:<scene>:blocked              set of items; marquee:<scene>:blocked-version changes with it (blocked_items.py)
    marquee:<scene>:answer:<request id>  an answered list, a day, in memory only; marquee:<scene>:answers is the ring that bounds
                                         their number

Users and items appear as `i<number>` or `s<string>`, so that 1 and "1" stay apart. Events are as durable as the server is told
to be: `appendonly yes` and `appendfsync always` answer a write only when it is on disk.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from data_exchange_center.errors import LockHeld, StoreError, StoreUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace
from online.stores.blocked_items import BlockedItems, new_version
from online.stores.event_queue import EventQueue
from online.stores.local_copy import LIVE, LocalCopy
from online.stores.ports import ANSWERS_KEPT, Event, Flip, Id, ShownList, UserProfile, UserRead, UserStore
from online.stores.profile_codec import decode_profile, encode_profile
from online.stores.recent_events import RECENT_KEPT, RECENT_SECONDS, SHOWN_KEPT, interaction, parsed, spelled
from online.stores.redis_event_queue import RedisEventQueue
from online.stores.redis_keys import answer_key, id_token, key, parse_id
from online.stores.redis_link import Command, RedisLink, link_to_url
from online.stores.redis_scripts import APPEND_EVENTS, BLOCK, FLIP, LOG_ANSWERS, NOTE_SHOWN, WRITE_USERS
from online.stores.redis_vocabularies import RedisVocabularies
from online.stores.vocabulary_store import VocabularyStore

ADMIN_TIMEOUT_S = 30.0
WRITE_BATCH = 512  # profiles a command
WRITE_AHEAD = 8  # commands that may wait for their reply while the next profiles are encoded
MEMORY_SAMPLES = 1000  # fields whose size Redis looks at to tell a hash's
UNPUBLISHED_SECONDS = 7 * 86_400
FLIPS_KEPT = 1000
ANSWER_SECONDS = 86_400


def open_users(settings: Settings, url: str) -> UserStore:
    """The adapter for a Redis URL."""
    hours = settings.serve.suppress_impressions_hours
    link = link_to_url(url, settings.stores.ca_file)
    return RedisUsers(link, Workspace(settings).online, settings.data.positive_above, hours)


class RedisUsers(UserStore):
    """See the module's docstring for the keys.

    Args:
        copies: folder of the copies of the pointer and of the blocked items.
        positive_above: a rating event above this is a positive.
        suppress_hours: how long a shown item is remembered; 0: none is.
    """

    def __init__(self, link: RedisLink, copies: Path, positive_above: float, suppress_hours: float = 0.0) -> None:
        self._link = link
        self._positive_above = positive_above
        self._shown_seconds = math.ceil(suppress_hours * 3600)
        self._copy = LocalCopy(copies, LIVE)
        self._blocked = BlockedItems(copies)
        self._vocabularies = RedisVocabularies(link)
        self._queue = RedisEventQueue(link)

    @property
    def vocabularies(self) -> VocabularyStore:
        return self._vocabularies

    @property
    def events_queue(self) -> EventQueue:
        return self._queue

    def read(self, scene: str, release: str, user_id: Id, timeout: float) -> UserRead:
        token = id_token(user_id)
        deadline = time.monotonic() + timeout
        commands: list[Command] = [
            ("GET", key(scene, "live")),
            ("HGET", key(scene, "users", release), token),
            ("HGETALL", key(scene, "user") + b":" + token),
            ("GET", key(scene, "blocked-version")),
            ("LRANGE", key(scene, "recent") + b":" + token, 0, -1),
        ]
        if self._shown_seconds:
            commands.append(("ZRANGE", key(scene, "shown") + b":" + token, 0, -1, "WITHSCORES"))
        live, value, interacted, version, recent, *shown = self._link.call(commands, timeout)
        times = shown[0] if shown else []
        return UserRead(
            live=live.decode() if live else None,
            profile=decode_profile(user_id, value) if value is not None else None,
            interacted=frozenset(map(parse_id, interacted[::2])),
            last_event=max((int(at.rstrip(b"+")) for at in interacted[1::2]), default=0),
            recent=parsed(recent),
            shown={parse_id(item): int(float(at)) for item, at in zip(times[::2], times[1::2], strict=True)},
            blocked=self._blocked_now(scene, version, deadline),
        )

    def write(
        self, scene: str, release: str, profiles: Iterable[UserProfile], *, content: str = "", start: int = 0
    ) -> int:
        target, mark, done = key(scene, "users", release), key(scene, "written", release), start

        def commands() -> Iterator[Command]:
            stored = start
            for batch in batches(profiles, WRITE_BATCH):
                fields: list[bytes] = []
                for profile in batch:
                    fields += (id_token(profile.user_id), encode_profile(profile))
                stored += len(batch)
                keys = (target, mark, key(scene, "live"))
                yield (
                    "EVAL",
                    WRITE_USERS,
                    len(keys),
                    *keys,
                    f"{stored} {content}",
                    UNPUBLISHED_SECONDS,
                    release,
                    *fields,
                )

        for stored in self._link.stream(commands(), ADMIN_TIMEOUT_S, WRITE_AHEAD):
            done = int(stored)
        self._link.one(("DEL", mark), ADMIN_TIMEOUT_S)
        return done - start

    def written(self, scene: str, release: str, content: str) -> int:
        mark = self._link.one(("GET", key(scene, "written", release)), ADMIN_TIMEOUT_S)
        stored, _, of = (mark or b"0 ").decode().partition(" ")
        return int(stored) if of == content else 0

    def memory(self, scene: str, release: str) -> int:
        command = ("MEMORY", "USAGE", key(scene, "users", release), "SAMPLES", MEMORY_SAMPLES)
        return int(self._link.one(command, ADMIN_TIMEOUT_S) or 0)

    def count(self, scene: str, release: str) -> int:
        return int(self._link.one(("HLEN", key(scene, "users", release)), ADMIN_TIMEOUT_S))

    def releases(self, scene: str) -> list[str]:
        prefix, cursor, found = key(scene, "users") + b":", b"0", set[bytes]()
        while True:
            cursor, names = self._link.one(("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", 1000), ADMIN_TIMEOUT_S)
            found.update(names)
            if cursor == b"0":
                return sorted(name.removeprefix(prefix).decode() for name in found)

    def drop(self, scene: str, release: str) -> None:
        self._link.one(("UNLINK", key(scene, "users", release), key(scene, "written", release)), ADMIN_TIMEOUT_S)

    def live(self, scene: str, timeout: float) -> str | None:
        deadline = time.monotonic() + timeout
        value, version = self._link.call([("GET", key(scene, "live")), ("GET", key(scene, "blocked-version"))], timeout)
        self._blocked_now(scene, version, deadline)
        if value is None:
            return None
        release: str = value.decode()
        self._copy.write(scene, release)
        return release

    def live_copy(self, scene: str) -> str | None:
        copied = self._copy.read(scene)
        return copied if isinstance(copied, str) else None

    def history(self, scene: str) -> list[Flip]:
        entries = self._link.one(("LRANGE", key(scene, "flips"), 0, -1), ADMIN_TIMEOUT_S)
        return [Flip(**json.loads(entry)) for entry in entries]

    def flip(self, scene: str, release: str, expected: str | None) -> None:
        entry = json.dumps({"release": release, "at": round(time.time(), 3)})
        keys = (key(scene, "live"), key(scene, "flips"), key(scene, "users", release))
        command = ("EVAL", FLIP, len(keys), *keys, release, expected or "", entry, FLIPS_KEPT)
        done, live = self._link.one(command, ADMIN_TIMEOUT_S)
        if not done:
            raise LockHeld(
                f"scene {scene}: {live.decode() or 'nothing'} is live, not {expected or 'nothing'} as this publisher expected: "
                "somebody else flipped in between; look at what is live and publish again if you still want to"
            )
        self._copy.write(scene, release)

    def append_events(self, scene: str, events: Sequence[Event], timeout: float) -> int:
        if not events:
            return 0
        keys = [key(scene, "events"), key(scene, "event-ids")]
        places: dict[bytes, int] = {}
        arguments: list[Any] = [RECENT_KEPT, RECENT_SECONDS, SHOWN_KEPT, self._shown_seconds]
        for event in events:
            user = id_token(event.user_id)
            if user not in places:
                places[user] = len(keys) + 1
                keys += [key(scene, kind) + b":" + user for kind in ("user", "recent", "shown")]
            payload = json.dumps(asdict(event), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            recent = interaction(event, self._positive_above)
            noted = b"" if recent is None else spelled(recent)
            arguments += (event.event_id, payload, places[user], id_token(event.item_id), event.timestamp, noted)
        return int(self._link.one(("EVAL", APPEND_EVENTS, len(keys), *keys, *arguments), timeout))

    def events(self, scene: str, after: str = "", limit: int = 1000) -> list[tuple[str, Event]]:
        start = f"({after}" if after else "-"
        entries = self._link.one(("XRANGE", key(scene, "events"), start, "+", "COUNT", limit), ADMIN_TIMEOUT_S)
        return [(position.decode(), Event(**json.loads(fields[1]))) for position, fields in entries]

    def block(self, scene: str, item_ids: Iterable[Id], timeout: float, *, blocked: bool = True) -> int:
        tokens = [id_token(item) for item in item_ids]
        if not tokens:
            return 0
        deadline = time.monotonic() + timeout
        keys = (key(scene, "blocked"), key(scene, "blocked-version"))
        command = ("EVAL", BLOCK, len(keys), *keys, "SADD" if blocked else "SREM", new_version(), *tokens)
        changed, version = self._link.one(command, timeout)
        self._blocked_now(scene, version, deadline)
        return int(changed)

    def blocked(self, scene: str, timeout: float) -> frozenset[Id]:
        deadline = time.monotonic() + timeout
        return self._blocked_now(scene, self._link.one(("GET", key(scene, "blocked-version")), timeout), deadline)

    def blocked_copy(self, scene: str) -> frozenset[Id]:
        return self._blocked.copy(scene)

    def _blocked_now(self, scene: str, version: bytes | None, deadline: float) -> frozenset[Id]:
        def fetch() -> Iterator[Id]:
            members = self._link.one(("SMEMBERS", key(scene, "blocked")), deadline - time.monotonic())
            return map(parse_id, members)

        return self._blocked.as_of(scene, version, fetch)

    def log_answers(self, scene: str, answers: Mapping[str, Mapping[str, Any]], timeout: float) -> None:
        if not answers:
            return
        keys = [key(scene, "answers"), *(answer_key(scene, request_id) for request_id in answers)]
        payloads = [zlib.compress(orjson.dumps(answer), 1) for answer in answers.values()]
        self._link.one(("EVAL", LOG_ANSWERS, len(keys), *keys, ANSWER_SECONDS, ANSWERS_KEPT, *payloads), timeout)

    def note_shown(self, scene: str, lists: Sequence[ShownList], timeout: float) -> None:
        if not lists or not self._shown_seconds:
            return
        keys = [key(scene, "shown") + b":" + id_token(one.user_id) for one in lists]
        arguments: list[Any] = [SHOWN_KEPT, self._shown_seconds]
        for one in lists:
            arguments += (one.timestamp, len(one.item_ids), *map(id_token, one.item_ids))
        self._link.one(("EVAL", NOTE_SHOWN, len(keys), *keys, *arguments), timeout)

    def answer(self, scene: str, request_id: str, timeout: float) -> dict[str, Any] | None:
        value = self._link.one(("GET", answer_key(scene, request_id)), timeout)
        if value is None:
            return None
        answer: dict[str, Any] = json.loads(zlib.decompress(value))
        return answer

    def ping(self, timeout: float) -> None:
        command: Command = ("PING",)
        try:
            answer = self._link.one(command, timeout)
        except StoreError as error:
            raise StoreUnavailable(error.message) from error
        if answer != b"PONG":
            raise StoreUnavailable(f"{self._link.place}: answered a ping with {answer!r}")

    def close(self) -> None:
        self._link.close()


def batches(profiles: Iterable[UserProfile], size: int) -> Iterator[list[UserProfile]]:
    """The profiles in lists of at most `size`."""
    iterator = iter(profiles)
    while batch := list(islice(iterator, size)):
        yield batch
