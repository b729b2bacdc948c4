"""`VocabularyStore` on Redis.

    marquee:<scene>:vocabulary:<feature>        hash: token -> id
    marquee:<scene>:vocabulary-state:<feature>  hash: capacity, next (ids given out so far), generation
    marquee:<scene>:vocabulary-free:<feature>   list of ids whose tokens were evicted
    marquee:<scene>:vocabulary-evicted:<feature>  list of records of what was evicted: {"at", "rule", "tokens": {token: id}}
    marquee:<scene>:vocabulary-new:<feature>:<client>:<minute>  new tokens that a client brought, for two minutes

A batch is one script: whatever runs at the same time, a token gets one id and an id one token. A counter and a hash that are
written one after another would leak an id whenever a client dies between the two, and pass the capacity when two of them race.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from data_exchange_center.errors import StoreError
from data_exchange_center.tokens import cleaned
from data_exchange_center.vocabulary import FIRST, UNKNOWN, Token, Vocabulary
from online.stores.redis_keys import id_token, key, parse_id
from online.stores.redis_link import RedisLink
from online.stores.vocabulary_store import MAX_TOKENS, Assigned, VocabularyStore, unknown

ADMIN_TIMEOUT_S = 30.0
WRITE_BATCH = 1000
RATE_SECONDS = 60

ASSIGN = """
-- KEYS map, state, free, rate; ARGV first id, UNK, new tokens allowed (-1: any), seconds to keep the rate, tokens
local state = redis.call('HMGET', KEYS[2], 'capacity', 'next')
if not state[1] then return redis.error_reply('NOVOCABULARY') end
local capacity, following, first, unk = tonumber(state[1]), tonumber(state[2]), tonumber(ARGV[1]), tonumber(ARGV[2])
local ids = redis.call('HMGET', KEYS[1], unpack(ARGV, 5))
local allowed, used, began, full, limited, made = tonumber(ARGV[3]), nil, following, 0, 0, {}
for at = 1, #ids do
  if ids[at] then
    ids[at] = tonumber(ids[at])
  elseif made[ARGV[at + 4]] then
    ids[at] = made[ARGV[at + 4]]
  else
    if allowed > 0 and not used then used = tonumber(redis.call('GET', KEYS[4]) or '0') end
    local id = unk
    if allowed == 0 or (allowed > 0 and used >= allowed) then
      limited = limited + 1
    elseif following < capacity then
      id = first + following
      following = following + 1
    else
      local free = redis.call('LPOP', KEYS[3])
      if free then id = tonumber(free) else full = full + 1 end
    end
    if id ~= unk then
      redis.call('HSET', KEYS[1], ARGV[at + 4], id)
      if used then used = used + 1 end
    end
    made[ARGV[at + 4]] = id
    ids[at] = id
  end
end
local added = 0
for _, id in pairs(made) do if id ~= unk then added = added + 1 end end
if following ~= began then redis.call('HSET', KEYS[2], 'next', following) end
if added > 0 and used then redis.call('SET', KEYS[4], used, 'EX', tonumber(ARGV[4])) end
return {added, full, limited, ids}
"""

SEED = """
-- KEYS map, state, free; ARGV capacity, a generation, first id, ids given out so far, whether this is the last part,
--   how many ids without a token, those ids, then token and id in turns
-- checked as a whole before anything is written: a token that has another id, or an id that was given to another token.
-- The capacity is written last: without it nothing is assigned, so a vocabulary is seeded whole or not yet there.
local state = redis.call('HMGET', KEYS[2], 'capacity', 'next')
local first, given, holes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
local fresh, following, begin = not state[1], tonumber(state[2] or '0'), 7 + tonumber(ARGV[6])
for at = begin, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  if known and known ~= ARGV[at + 1] then return {0, ARGV[at], known} end
  if not known and not fresh and tonumber(ARGV[at + 1]) < first + following then return {0, ARGV[at], ''} end
end
if not fresh and tonumber(state[1]) > tonumber(ARGV[1]) then return {0, '', state[1]} end
local added = 0
for at = begin, #ARGV, 2 do added = added + redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
if given > following then
  for at = 7, 6 + holes do
    if tonumber(ARGV[at]) >= first + following then redis.call('RPUSH', KEYS[3], ARGV[at]) end
  end
  redis.call('HSET', KEYS[2], 'next', given)
end
if ARGV[5] == '1' then redis.call('HSET', KEYS[2], 'capacity', ARGV[1]) end
redis.call('HSETNX', KEYS[2], 'generation', ARGV[2])
return {1, added}
"""

EVICT = """
-- KEYS map, free, records; ARGV the rule, when, tokens
local gone, tokens = 0, {}
for at = 3, #ARGV do
  local id = redis.call('HGET', KEYS[1], ARGV[at])
  if id then
    redis.call('HDEL', KEYS[1], ARGV[at])
    redis.call('RPUSH', KEYS[2], id)
    tokens[string.sub(ARGV[at], 2)] = tonumber(id)
    gone = gone + 1
  end
end
if gone > 0 then redis.call('RPUSH', KEYS[3], cjson.encode({at = ARGV[2], rule = ARGV[1], tokens = tokens})) end
return gone
"""


class RedisVocabularies(VocabularyStore):
    """See the module's docstring for the keys."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def assign(
        self, scene: str, feature: str, tokens: Sequence[Token], timeout: float, client: str = "", new_limit: int = -1
    ) -> Assigned:
        if len(tokens) > MAX_TOKENS:
            raise StoreError(f"{feature}: {len(tokens)} tokens at once; {MAX_TOKENS} at most", field=feature)
        clean = [cleaned(token) for token in tokens]
        asked = [id_token(token) for token in clean if token is not None]
        refused = len(clean) - len(asked)
        if not asked:
            return Assigned(unknown(len(clean)), refused=refused)
        rate = key(scene, "vocabulary-new", feature, client, str(int(time.time()) // RATE_SECONDS))
        keys = (*_keys(scene, feature), rate)
        command = ("EVAL", ASSIGN, len(keys), *keys, FIRST, UNKNOWN, new_limit, 2 * RATE_SECONDS, *asked)
        try:
            added, full, limited, found = self._link.one(command, timeout)
        except StoreError as error:
            if "NOVOCABULARY" in error.message:
                raise _absent(scene, feature) from error
            raise
        ids = unknown(len(clean))
        ids[[token is not None for token in clean]] = found
        return Assigned(ids, int(added), int(full), int(limited), refused)

    def seed(self, scene: str, vocabulary: Vocabulary) -> int:
        keys, tokens, added = _keys(scene, vocabulary.feature), vocabulary.tokens, 0
        for start in range(0, max(len(tokens), 1), WRITE_BATCH):
            part = list(enumerate(tokens[start : start + WRITE_BATCH], start=FIRST + start))
            end = start + len(part)
            holes = [number for number, token in part if token is None]
            flat = [entry for number, token in part if token is not None for entry in (id_token(token), number)]
            head = (vocabulary.capacity, uuid.uuid4().hex, FIRST, end, int(end == len(tokens)), len(holes))
            done, *said = self._link.one(("EVAL", SEED, len(keys), *keys, *head, *holes, *flat), ADMIN_TIMEOUT_S)
            if not done:
                raise StoreError(_contradiction(scene, vocabulary, *said), field=vocabulary.feature)
            added += int(said[0])
        self._record(scene, vocabulary)
        return added

    def _record(self, scene: str, vocabulary: Vocabulary) -> None:
        """Adds the release's evictions that are not recorded here."""
        known = self._evictions(scene, vocabulary.feature)
        missing = [json.dumps(record, ensure_ascii=False) for record in vocabulary.evictions if record not in known]
        if missing:
            self._link.one(("RPUSH", _records(scene, vocabulary.feature), *missing), ADMIN_TIMEOUT_S)

    def _evictions(self, scene: str, feature: str) -> tuple[dict[str, Any], ...]:
        entries = self._link.one(("LRANGE", _records(scene, feature), 0, -1), ADMIN_TIMEOUT_S)
        return tuple(json.loads(entry) for entry in entries)

    def export(self, scene: str, feature: str) -> Vocabulary:
        names, state, free = _keys(scene, feature)
        capacity, given = self._link.one(("HMGET", state, "capacity", "next"), ADMIN_TIMEOUT_S)
        if capacity is None:
            raise _absent(scene, feature)
        freed = {int(number) for number in self._link.one(("LRANGE", free, 0, -1), ADMIN_TIMEOUT_S)}
        tokens: list[Token | None] = [None] * int(given)
        for token, number in self._all(names).items():
            place = number - FIRST
            if place >= len(tokens):
                continue  # assigned while we read: it belongs to the next export
            if place < 0 or tokens[place] is not None:
                raise StoreError(f"scene {scene}, {feature}: id {number} has two tokens, one of them {token!r}")
            tokens[place] = token
        holes = {FIRST + place for place, token in enumerate(tokens) if token is None} - freed
        if holes:
            raise StoreError(f"scene {scene}, {feature}: id {min(holes)} was given out and has no token")
        evictions = self._evictions(scene, feature)
        if freed and not evictions:  # freed by a version of Marquee that recorded nothing
            evictions = ({"at": "", "rule": "evicted online", "tokens": {}},)
        return Vocabulary(feature, tuple(tokens), int(capacity), evictions)

    def evict(self, scene: str, feature: str, tokens: Sequence[Token], rule: str, at: str) -> int:
        names, _, free = _keys(scene, feature)
        if not tokens:
            return 0
        keys = (names, free, _records(scene, feature))
        command = ("EVAL", EVICT, len(keys), *keys, rule, at, *map(id_token, tokens))
        return int(self._link.one(command, ADMIN_TIMEOUT_S))

    def generation(self, scene: str, feature: str, timeout: float) -> str:
        value = self._link.one(("HGET", _keys(scene, feature)[1], "generation"), timeout)
        return "" if value is None else str(value.decode())

    def drop(self, scene: str, feature: str) -> None:
        self._link.one(("UNLINK", *_keys(scene, feature), _records(scene, feature)), ADMIN_TIMEOUT_S)

    def _all(self, names: bytes) -> dict[Token, int]:
        """Every token and its id: a scan may bring one twice, and misses none that was there when it began."""
        found: dict[Token, int] = {}
        cursor = b"0"
        while True:
            cursor, entries = self._link.one(("HSCAN", names, cursor, "COUNT", WRITE_BATCH), ADMIN_TIMEOUT_S)
            for token, number in zip(entries[::2], entries[1::2], strict=True):
                found[parse_id(token)] = int(number)
            if cursor == b"0":
                return found


def _keys(scene: str, feature: str) -> tuple[bytes, bytes, bytes]:
    return (
        key(scene, "vocabulary", feature),
        key(scene, "vocabulary-state", feature),
        key(scene, "vocabulary-free", feature),
    )


def _records(scene: str, feature: str) -> bytes:
    return key(scene, "vocabulary-evicted", feature)


def _absent(scene: str, feature: str) -> StoreError:
    return StoreError(f"scene {scene} has no online vocabulary of {feature!r}; publish a release", field=feature)


def _contradiction(scene: str, vocabulary: Vocabulary, token: bytes, known: bytes) -> str:
    head = f"scene {scene}, {vocabulary.feature}: the release's vocabulary contradicts the online one: "
    if not token:
        return f"{head}its capacity {vocabulary.capacity} is below {known.decode()}, and ids may be in use above it"
    spelled = parse_id(token)
    number = vocabulary.ids[spelled]
    if known:
        return f"{head}token {spelled!r} has id {number} there and {known.decode()} here"
    return f"{head}id {number} of token {spelled!r} belongs to another token here; train on the exported vocabulary"
