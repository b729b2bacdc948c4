"""What has to happen in one atomic step inside Redis, as Lua. Effects, not scripts, go to replicas and the append-only file."""

FLIP = """
-- KEYS live, flips, the release's users, which stay from now on;
-- ARGV release, expected ('' for none), the entry for the list of flips, how many entries to keep
local live = redis.call('GET', KEYS[1]) or ''
if live == ARGV[1] then return {1, live} end
if live ~= ARGV[2] then return {0, live} end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('PERSIST', KEYS[3])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[4]), -1)
return {1, live}
"""

APPEND_EVENTS = """
-- KEYS stream, event ids, then per user: hash of interactions, list of recent events, items shown lately;
-- ARGV recent events to keep, seconds to keep them, shown items to keep, seconds to keep them (0: none are noted), then per event:
-- id, payload, index of the user's first key, item, timestamp, the recent event's value ('' for an impression)
redis.replicate_commands()
local added = 0
for at = 5, #ARGV, 6 do
  if redis.call('SADD', KEYS[2], ARGV[at]) == 1 then
    redis.call('XADD', KEYS[1], '*', 'event', ARGV[at + 1])
    local place, item, timestamp, recent = tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    if recent ~= '' then
      local user, list = KEYS[place], KEYS[place + 1]
      local known = redis.call('HGET', user, item)
      if not known or tonumber(string.match(known, '%d+')) <= tonumber(timestamp) then
        redis.call('HSET', user, item, timestamp)
      end
      redis.call('RPUSH', list, recent)
      redis.call('LTRIM', list, -tonumber(ARGV[1]), -1)
      redis.call('EXPIRE', list, ARGV[2])
    elseif ARGV[4] ~= '0' then
      local shown = KEYS[place + 2]
      redis.call('ZADD', shown, 'GT', timestamp, item)
      redis.call('ZREMRANGEBYRANK', shown, 0, -tonumber(ARGV[3]) - 1)
      redis.call('EXPIRE', shown, ARGV[4])
    end
    added = added + 1
  end
end
return added
"""

NOTE_SHOWN = """
-- KEYS items shown lately, one key per answer; ARGV items to keep, seconds to keep them, then per answer: timestamp, how many items
-- and those items. Like answered lists they stay out of the append-only file.
redis.replicate_commands()
redis.set_repl(redis.REPL_NONE)
local at = 3
for place = 1, #KEYS do
  local count = tonumber(ARGV[at + 1])
  for item = at + 2, at + 1 + count do redis.call('ZADD', KEYS[place], 'GT', ARGV[at], ARGV[item]) end
  redis.call('ZREMRANGEBYRANK', KEYS[place], 0, -tonumber(ARGV[1]) - 1)
  redis.call('EXPIRE', KEYS[place], ARGV[2])
  at = at + 2 + count
end
return #KEYS
"""

WRITE_USERS = """
-- KEYS hash of users, mark of how far it is written, live; ARGV the new mark, seconds until both expire, the release, then user and
-- profile of each
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
if redis.call('GET', KEYS[3]) ~= ARGV[3] then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return string.match(ARGV[1], '%d+')
"""

BLOCK = """
-- KEYS set of items, its version; ARGV SADD or SREM, the version that a change makes, items
local changed = 0
for at = 3, #ARGV do changed = changed + redis.call(ARGV[1], KEYS[1], ARGV[at]) end
if changed > 0 then redis.call('SET', KEYS[2], ARGV[2]) end
return {changed, redis.call('GET', KEYS[2])}
"""

LOG_ANSWERS = """
-- KEYS the ring of answer keys, then one key per answer; ARGV seconds to keep, answers to keep, then one payload per answer
-- Answers stay out of the append-only file: syncing them with the events would hold up every user's read while the disk works.
redis.replicate_commands()
redis.set_repl(redis.REPL_NONE)
for at = 2, #KEYS do
  if redis.call('EXISTS', KEYS[at]) == 0 then redis.call('RPUSH', KEYS[1], KEYS[at]) end
  redis.call('SET', KEYS[at], ARGV[at + 1], 'EX', ARGV[1])
end
while redis.call('LLEN', KEYS[1]) > tonumber(ARGV[2]) do redis.call('DEL', redis.call('LPOP', KEYS[1])) end
return redis.call('LLEN', KEYS[1])
"""
