"""What the store does in one step each, in Lua; all of them take all keys, in the order of `keys.KEYS`.

A stream begun anew is another one, though it has the same keys: each script is told which it is meant for, and answers
``{"gone"}`` to all others.
"""

from __future__ import annotations

_NAMES = """
local about, rows, counts, failed, causes, firsts, rejected, pins, workers, series, pace = unpack(KEYS)
local group = 'workers'
"""

_COMMON = (
    _NAMES
    + """
if redis.call('HGET', about, 'id') ~= ARGV[1] then return {'gone'} end
local function number(key, field) return tonumber(redis.call('HGET', key, field) or 0) end
local function state()
  local taken = redis.call('HMGET', counts, 'done', 'lowered', 'failed', 'rejected')
  local known = redis.call('HMGET', about, 'complete', 'rows', 'loaded', 'rejected', 'superseded')
  local length = redis.call('XLEN', rows)
  local sending = length > 0 and redis.call('XPENDING', rows, group)[1] or 0
  local found = {tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0), tonumber(known[4] or 0),
    tonumber(known[5] or 0), tonumber(taken[1] or 0), tonumber(taken[2] or 0), tonumber(taken[3] or 0),
    tonumber(taken[4] or 0), sending, length}
  return found
end
-- Whether load put an entry there: its ids are <line>-0, and its position is the last line.
local position = tonumber(redis.call('HGET', about, 'position') or 0)
local function foreign(id)
  local line, part = string.match(id, '^(%d+)-(%d+)$')
  return part ~= '0' or tonumber(line) > position
end
local function held(consumer)
  local ids = {}
  for _, entry in ipairs(redis.call('XPENDING', rows, group, '-', '+', 1000000, consumer)) do
    ids[#ids + 1] = entry[1]
  end
  return ids
end
local function claim(ids, consumer, idle)
  for first = 1, #ids, 500 do
    local part = {}
    for at = first, math.min(first + 499, #ids) do part[#part + 1] = ids[at] end
    for _, word in ipairs({'IDLE', idle, 'JUSTID'}) do part[#part + 1] = word end
    redis.call('XCLAIM', rows, group, consumer, 0, unpack(part))
  end
end
"""
)

BEGIN = (
    _NAMES
    + """
if ARGV[1] == 'replace' then redis.call('UNLINK', unpack(KEYS)) end
if redis.call('EXISTS', about) == 0 then
  if redis.call('EXISTS', unpack(KEYS)) > 0 then return {'stray'} end
  redis.call('HSET', about, unpack(ARGV, 2))
  redis.call('XGROUP', 'CREATE', rows, group, '0', 'MKSTREAM')
  return {'new', redis.call('HGETALL', about)}
end
return {'old', redis.call('HGETALL', about)}
"""
)
"""Begin a stream, unless there is one.  ARGV: "replace" or "keep", then what it is of.  Returns that."""

LOOK = (
    _NAMES
    + """
if redis.call('EXISTS', about) == 0 then
  if redis.call('EXISTS', unpack(KEYS)) > 0 then return {'stray'} end
  return {'none'}
end
return {'old', redis.call('HGETALL', about)}
"""
)
"""What a stream is of."""

BIND = (
    _COMMON
    + """
if redis.call('HGET', about, 'sdk_app_id') == '0' then
  redis.call('HSET', about, 'sdk_app_id', ARGV[2], 'base_url', ARGV[3])
end
return {'ok', redis.call('HGETALL', about)}
"""
)
"""Have a stream belong to an app, unless it does already.  ARGV: the id, the app, where it is."""

LOAD = (
    _COMMON
    + """
position = redis.call('HGET', about, 'position')
if position ~= ARGV[2] then return {'elsewhere', position, state()} end
local many = tonumber(ARGV[4])
local at = 5
for _ = 1, many do
  if ARGV[at + 2] == '1' then
    redis.call('XADD', rows, ARGV[at] .. '-0', 'v', ARGV[at + 1], 'p', '1')
  else
    redis.call('XADD', rows, ARGV[at] .. '-0', 'v', ARGV[at + 1])
  end
  at = at + 3
end
redis.call('HSET', about, 'position', ARGV[3])
redis.call('HINCRBY', about, 'loaded', many)
while at < #ARGV do
  redis.call('HSET', rejected, ARGV[at], ARGV[at + 1])
  at = at + 2
end
return {'ok', ARGV[3], state()}
"""
)
"""Put rows on the stream.  ARGV: the id; the line that the last ones ended at, and where these do; how many, and each
with its line, its values, and whether it needs a time; then the rejected rows, each with its line and its document."""

COMPLETE = (
    _COMMON
    + """
local now = state()
local settled = now[6] + now[7] + now[8] + now[9]
if now[3] ~= now[2] or now[11] + settled ~= now[2] then return {'missing', now} end
redis.call('HSET', about, 'complete', 1)
return {'ok', state()}
"""
)
"""Have the load be complete, if all rows are there.  ARGV: the id."""

TAKE = (
    _COMMON
    + """
local now = redis.call('TIME')[1]
local room = tonumber(ARGV[3])
local found = {}
local function take(entries)
  for _, entry in ipairs(entries) do
    local id, fields = entry[1], entry[2]
    if fields then
      local pin = ''
      if fields[3] == 'p' and not foreign(id) then
        redis.call('HSETNX', pins, id, now)
        pin = redis.call('HGET', pins, id)
      end
      found[#found + 1] = {id, fields, pin, foreign(id) and 1 or 0}
    end
  end
end
if ARGV[4] ~= '' and redis.call('XLEN', rows) > 0 then
  local cursor = '0-0'
  repeat
    local claimed = redis.call('XAUTOCLAIM', rows, group, ARGV[2], ARGV[4], cursor, 'COUNT', room - #found)
    cursor = claimed[1]
    take(claimed[2])
  until cursor == '0-0' or #found >= room
end
if #found < room then
  local new = redis.call('XREADGROUP', 'GROUP', group, ARGV[2], 'COUNT', room - #found, 'STREAMS', rows, '>')
  if new then take(new[1][2]) end
end
return {'ok', found, state()}
"""
)
"""Take rows: those that somebody left, and then new ones.  ARGV: the id; who; how many at most; after how many
milliseconds without a word a row counts as left, "" to take new ones only.  A row without a time of its own gets one,
here and now, unless it has been given one before.  Returns of each its entry, its fields, its time, and whether
something other than load put it there."""

RECORD = (
    _COMMON
    + """
local new = {done = 0, lowered = 0, failed = 0, rejected = 0}
local documents = {failed = failed, rejected = rejected}
for at = 2, #ARGV, 5 do
  local id = ARGV[at]
  if redis.call('XACK', rows, group, id) == 1 then
    redis.call('XDEL', rows, id)
    redis.call('HDEL', pins, id)
    local outcome = ARGV[at + 1]
    new[outcome] = new[outcome] + 1
    if foreign(id) then
      redis.call('HINCRBY', about, 'rows', 1)
      redis.call('HINCRBY', about, 'loaded', 1)
    end
    if documents[outcome] then
      local cause = ARGV[at + 2]
      local line = string.gsub(id, '%-0$', '')
      redis.call('HSET', documents[outcome], line, ARGV[at + 4])
      redis.call('HINCRBY', causes, cause, 1)
      line = string.match(id, '^%d+')
      local first = redis.call('HGET', firsts, cause)
      if not first or tonumber(string.match(first, '^%d+')) > tonumber(line) then
        redis.call('HSET', firsts, cause, line .. ' ' .. ARGV[at + 3])
      end
    end
  end
end
local sum = 0
for outcome, many in pairs(new) do
  if many > 0 then redis.call('HINCRBY', counts, outcome, many) end
  sum = sum + many
end
if sum > 0 then
  local now = tonumber(redis.call('TIME')[1])
  local slot = now - now % 5
  if redis.call('HINCRBY', pace, slot, sum) == sum then
    for _, old in ipairs(redis.call('HKEYS', pace)) do
      if tonumber(old) < now - 90 then redis.call('HDEL', pace, old) end
    end
  end
end
return {'ok', sum, state()}
"""
)
"""Write outcomes, and take their rows off the stream; what another has written first is left as it is.  ARGV: the id,
and for each row its entry; "done", "lowered", "failed" or "rejected"; and of one of the last two, the cause, the
reason, the document.  Acknowledged before anything else is written: what frees memory is allowed when there is none
left, and then so is the rest.  An entry that load did not put there counts as one more row once it is rejected."""

KEEP = (
    _COMMON
    + """
local wanted, mine = {}, {}
for at = 4, #ARGV do wanted[ARGV[at] .. '-0'] = true end
for _, id in ipairs(held(ARGV[2])) do
  if wanted[id] then mine[#mine + 1] = id end
end
claim(mine, ARGV[2], 0)
redis.pcall('HSET', workers, ARGV[2], redis.call('TIME')[1] .. ' ' .. ARGV[3])
return {'ok', state()}
"""
)
"""Renew the lease on rows, as far as nobody has taken them over.  ARGV: the id, who, what is known of it, lines.
A sign of life that finds no memory is left out: the work goes on without."""

LEAVE = (
    _COMMON
    + """
claim(held(ARGV[2]), 'returned', 86400000)
redis.call('XGROUP', 'DELCONSUMER', rows, group, ARGV[2])
redis.pcall('HSET', workers, ARGV[2], redis.call('TIME')[1] .. ' ' .. ARGV[3])
if ARGV[4] ~= '' then redis.pcall('HSET', series, ARGV[2], ARGV[4]) end
return {'ok', state()}
"""
)
"""Give all rows back, for others to take at once.  ARGV: the id, who, what is known of it, how its calls went."""

SERIES = (
    _COMMON
    + """
redis.pcall('HSET', series, ARGV[2], ARGV[3])
return {'ok', state()}
"""
)
"""Save how a worker's calls went.  ARGV: the id, who, and that."""

SURVEY = (
    _COMMON
    + """
local now = tonumber(redis.call('TIME')[1])
return {'ok', state(), now, redis.call('HGETALL', causes), redis.call('HGETALL', firsts),
  redis.call('HGETALL', workers), redis.call('HGETALL', series), redis.call('HGETALL', pace)}
"""
)
"""Everything but the rows, at one moment.  ARGV: the id."""
