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
-- KEYS stream, event ids, then one hash of interactions per user;
-- ARGV per event: id, payload, index of the user's hash, item ('' for an impression), timestamp with a + when it was liked
redis.replicate_commands()
local added = 0
for at = 1, #ARGV, 5 do
  if redis.call('SADD', KEYS[2], ARGV[at]) == 1 then
    redis.call('XADD', KEYS[1], '*', 'event', ARGV[at + 1])
    local user, item, timestamp = KEYS[tonumber(ARGV[at + 2])], ARGV[at + 3], ARGV[at + 4]
    if item ~= '' then
      local known = redis.call('HGET', user, item)
      if not known or tonumber(string.match(known, '%d+')) <= tonumber(string.match(timestamp, '%d+')) then
        redis.call('HSET', user, item, timestamp)
      end
    end
    added = added + 1
  end
end
return added
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
