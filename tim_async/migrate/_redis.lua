-- A migration that many machines share.  The theory is at the top of _redis.py.
--
-- KEYS[1]  about: a hash; what the migration is of.  All other keys begin as this one does, and are in its slot
-- KEYS[2]  the key by which earlier releases would know a migration of this name
-- ARGV[1]  the request, a JSON object; `op` names one of the operations below.  The reply is one, too
--
-- The keys' names hold the version of this layout (LAYOUT in _redis.py).  It changes when what is stored here changes its
-- meaning.  Each operation bears being carried out twice: the link repeats it when its reply was lost.
--
-- What frees memory comes first where it can: a store whose memory is full then allows the rest, too.
-- cjson.encode writes no more than 14 digits, so that times and entries' ids travel as strings; it writes an empty table
-- as {}, and cjson.decode reads null as a true value: both leave out what is absent.
local GROUP, RETURNED = 'workers', 'returned'
local PENDING, DONE, LOWERED, FAILED, REJECTED, SUPERSEDED = 1, 2, 3, 4, 5, 6  -- State, and 1; 0 is no row at all
local NAMES = { 'left', 'done', 'lowered', 'failed', 'rejected', 'superseded' }
local BUCKETS = 16384  -- hashes of the index: so small that the store keeps them packed
local MOST_CAUSES, MOST_WORKERS = 1000, 1000
local YEARS, WHOLE = 100000000000, 2 ^ 53

local request = cjson.decode(ARGV[1])
local prefix = string.sub(KEYS[1], 1, -#'about' - 1)
local function key(name) return prefix .. name end
local about = KEYS[1]
local rows = key('rows')  -- a stream with a group: each row that was ever to be sent.  An entry stays once it is settled
local counts = key('counts')  -- a hash: rows by state, and entries that must be on the stream
local states = key('states')  -- a bit field: four bits for each line
local moved = key('moved')  -- a sorted set: entries whose row is not of the line that their id says; the score is the line
local replaced = key('replaced')  -- a hash: by line of a row the row that it superseded, as "<line> <values>"
local claims = key('claims')  -- a hash: by line of a pending row when it was claimed first; "" when it was given back unsent
local problems = key('problems')  -- a hash: failed and rejected rows, as "<cause>\0<document>", by line or foreign entry
local causes = key('causes')  -- a set: what they have in common.  Of each, cause:… is a sorted set of them by line
local workers = key('workers')  -- a hash: by worker "<seen> <rows> <document>"
local series = key('series')  -- a hash: how each worker's calls went over time
local recent = key('recent')  -- a hash: outcomes of the last minute, by time
local pace = key('pace')  -- a hash: rate and share as they were set, as "<version> <value>"
local notes = key('notes')  -- a hash of texts
local FIXED = { about, rows, counts, states, moved, replaced, claims, problems, causes, workers, series, recent, pace, notes }

local clock = tonumber(redis.call('TIME')[1])
local position  -- the last line that was planned; beyond it an entry is foreign, unless it is in `moved`
local changes = {}  -- of `counts`
local last  -- the highest id of a row that was planned, or of an entry that the stream has had

local function count(name, by) changes[name] = (changes[name] or 0) + by end

local function save_counts()
    for name, by in pairs(changes) do
        if by ~= 0 then redis.call('HINCRBY', counts, name, by) end
    end
    changes = {}
end

local function object(flat)
    local found = {}
    for at = 1, #flat, 2 do found[flat[at]] = flat[at + 1] end
    return found
end

local function hash(name) return object(redis.call('HGETALL', name)) end

-- Rows

local function state_of(line) return redis.call('BITFIELD_RO', states, 'GET', 'u4', '#' .. line)[1] end

local function move(line, from, to)
    redis.call('BITFIELD', states, 'SET', 'u4', '#' .. line, to)
    if from > 0 then count(NAMES[from], -1) end
    count(NAMES[to], 1)
end

local function id_of(line) return redis.call('ZRANGEBYSCORE', moved, line, line)[1] or line .. '-0' end

-- The line of an entry; nil when it is foreign.
local function line_of(id)
    local line, part = string.match(id, '^(%d+)-(%d+)$')
    if part == '0' and tonumber(line) <= position then return tonumber(line) end
    return tonumber(redis.call('ZSCORE', moved, id))
end

local function value_in(fields)
    for at = 1, #fields, 2 do
        if fields[at] == 'v' then return fields[at + 1] end
    end
    return ''
end

local function values_at(id)
    local found = redis.call('XRANGE', rows, id, id)[1]
    return found and value_in(found[2]) or ''
end

local function add_entry(id, values)
    redis.call('XADD', rows, id, 'v', values)
    count('entries', 1)
end

-- Above every line, too: the last lines of a file may have no entry.
local function highest_id()
    if not last then
        local found = object(redis.call('XINFO', 'STREAM', rows))
        last = math.max(position, tonumber(string.match(found['last-generated-id'], '^%d+')))
    end
    return last
end

-- Put a row on the stream once more, behind all others.
local function append(line, values)
    last = highest_id() + 1
    local id = string.format('%.0f-0', last)
    add_entry(id, values)
    redis.call('ZADD', moved, line, id)
end

local function remove(line)
    local id = id_of(line)
    redis.call('XACK', rows, GROUP, id)
    redis.call('XDEL', rows, id)
    redis.call('ZREM', moved, id)
    redis.call('HDEL', claims, line)
    count('entries', -1)
end

-- Problems

local function add_problem(name, line, cause, document)
    if redis.call('SISMEMBER', causes, cause) == 0 and redis.call('SCARD', causes) >= MOST_CAUSES then
        cause = string.sub(cause, 1, 1) == '!' and '!' or ':'
    end
    redis.call('SADD', causes, cause)
    redis.call('ZADD', key('cause:' .. cause), line, name)
    redis.call('HSET', problems, name, cause .. '\0' .. document)
end

local function remove_problem(name)
    local cause = string.match(redis.call('HGET', problems, name) or '', '^(.-)%z')
    redis.call('HDEL', problems, name)
    if cause then
        redis.call('ZREM', key('cause:' .. cause), name)
        if redis.call('EXISTS', key('cause:' .. cause)) == 0 then redis.call('SREM', causes, cause) end
    end
end

-- Members: the index knows the last valid row of each, and `replaced` those before it, from each to the next lower line.
-- Of all but the last, those that are done are still on the stream, and the values of all others are in `replaced`.

local function member(values)
    local read, found = pcall(cjson.decode, values)
    if not read or type(found) ~= 'table' or type(found[1]) ~= 'string' or type(found[2]) ~= 'string' then return nil end
    local digest = redis.sha1hex(#found[1] .. ':' .. found[1] .. found[2])
    local function part(first, final) return tonumber(string.sub(digest, first, final), 16) end
    return key('index:' .. part(1, 4) % BUCKETS), struct.pack('>I4I4', part(5, 12), part(13, 20))
end

local function last_of(bucket, field) return tonumber(redis.call('HGET', bucket, field)) end

local function row_below(line)
    local before, values = string.match(redis.call('HGET', replaced, line) or '', '^(%d+) ?(.*)$')
    return tonumber(before), values
end

local function supersede(line, by)
    local state = state_of(line)
    if state == DONE or state == LOWERED then
        redis.call('HSET', replaced, by, line)
        return
    end
    redis.call('HSET', replaced, by, line .. ' ' .. values_at(id_of(line)))
    remove(line)
    if state == FAILED then remove_problem(line) end
    move(line, state, SUPERSEDED)
end

-- Have a row that is not sent any more leave its member: the one that it superseded takes its place.
local function leave(line, values)
    local bucket, field = member(values)
    if not bucket or last_of(bucket, field) ~= line then return end
    local heir, heirs_values = row_below(line)
    redis.call('HDEL', replaced, line)
    if not heir then
        redis.call('HDEL', bucket, field)
        return
    end
    redis.call('HSET', bucket, field, heir)
    if state_of(heir) == SUPERSEDED then
        append(heir, heirs_values)
        move(heir, SUPERSEDED, PENDING)
    end
end

-- Have a row join a member; its state.
local function join(line, values)
    local bucket, field = member(values)
    local above = last_of(bucket, field)
    if not above or above <= line then
        redis.call('HSET', bucket, field, line)
        if above and above < line then supersede(above, line) end
        append(line, values)
        return PENDING
    end
    local below = row_below(above)
    while below and below > line and below < above do
        above, below = below, row_below(below)
    end
    local text = redis.call('HGET', replaced, above)
    if text then redis.call('HSET', replaced, line, text) end
    redis.call('HSET', replaced, above, line .. ' ' .. values)
    return SUPERSEDED
end

-- Workers

local function held_by(worker)
    local ids = {}
    for _, entry in ipairs(redis.call('XPENDING', rows, GROUP, '-', '+', 1000000, worker)) do ids[#ids + 1] = entry[1] end
    return ids
end

local function claim(ids, worker, idle)
    for first = 1, #ids, 500 do
        local part = { unpack(ids, first, math.min(first + 499, #ids)) }
        for _, word in ipairs({ 'IDLE', idle, 'JUSTID' }) do part[#part + 1] = word end
        redis.call('XCLAIM', rows, GROUP, worker, 0, unpack(part))
    end
end

-- Whether a worker that seems to live has claimed a row.
local function is_claimed(line)
    local id = id_of(line)
    local found = redis.call('XPENDING', rows, GROUP, id, id, 1)[1]
    return found and found[2] ~= RETURNED and found[3] < request.lease
end

-- Note that a worker lives.  A sign of life that finds no memory is left out: the work goes on without.
local function see_worker(new)
    local known = redis.call('HGET', workers, request.worker)
    local settled = tonumber(string.match(known or '', '^%d+ (%d+)') or 0) + new
    redis.pcall('HSET', workers, request.worker, clock .. ' ' .. settled .. ' ' .. request.info)
    return known
end

-- Forget workers: consumers that hold nothing, were killed long ago and are not ours; of those that ended or were killed
-- all but the ones seen last, whose numbers are added up in `about`.
local function forget_workers()
    for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', rows, GROUP)) do
        local consumer = object(flat)
        if consumer.pending == 0 and consumer.idle >= 1000 * request.forget_after then
            redis.call('XGROUP', 'DELCONSUMER', rows, GROUP, consumer.name)
        end
    end
    local many = redis.call('HLEN', workers) - MOST_WORKERS
    if many <= 0 then return end
    local found = {}
    for name, text in pairs(hash(workers)) do
        local seen, settled, document = string.match(text, '^(%d+) (%d+) (.*)$')
        local read, info = pcall(cjson.decode, document or '')
        if not read or type(info) ~= 'table' then seen, info = 0, {} end
        seen = tonumber(seen) or 0
        if info.how ~= '' or clock - seen >= request.forget_after then found[#found + 1] = { seen, name, info } end
    end
    table.sort(found, function(one, other) return one[1] < other[1] end)
    local read, total = pcall(cjson.decode, redis.call('HGET', about, 'forgotten') or '{}')
    if not read or type(total) ~= 'table' then total = {} end
    for at = 1, math.min(many, #found) do
        local seen, name, info = unpack(found[at])
        total.started = math.min(tonumber(total.started) or seen, seen)
        total.ended = math.max(tonumber(total.ended) or seen, seen)
        for call, number in pairs(type(info.calls) == 'table' and info.calls or {}) do
            if type(number) == 'number' then total[call] = (tonumber(total[call]) or 0) + number end
        end
        redis.call('HDEL', workers, name)
        redis.call('HDEL', series, name)
    end
    redis.call('HSET', about, 'forgotten', cjson.encode(total))
end

-- How far it is.  `sending` is held by workers, by the one that asks or by others.
local function add_progress(reply)
    local found = redis.call('HMGET', counts, 'entries', unpack(NAMES))
    local names = { 'entries', unpack(NAMES) }
    reply.counts = {}
    for at, name in ipairs(names) do reply.counts[name] = tonumber(found[at] or 0) end
    local pending = redis.call('XPENDING', rows, GROUP)
    local held = {}
    for _, consumer in ipairs(pending[4] or {}) do held[consumer[1]] = tonumber(consumer[2]) end
    reply.delivered = pending[1]
    reply.sending = pending[1] - (held[RETURNED] or 0)
    reply.mine = request.worker and held[request.worker] or 0
    reply.length = redis.call('XLEN', rows)
    return reply
end

-- Erase a migration, whatever it is.
local function erase()
    if redis.call('TYPE', causes).ok == 'set' then
        for _, cause in ipairs(redis.call('SMEMBERS', causes)) do redis.call('UNLINK', key('cause:' .. cause)) end
    end
    redis.call('UNLINK', unpack(FIXED))
    for first = 0, BUCKETS - 1, 1024 do
        local names = {}
        for bucket = first, first + 1023 do names[#names + 1] = key('index:' .. bucket) end
        redis.call('UNLINK', unpack(names))
    end
end

-- Operations

local ops = {}  -- of the migration with the id that the request names; where it names none, of any
local loaded = {}  -- operations for which all rows must be planned

-- Begin a migration, unless all rows of one are planned; what it is of then.
function ops.open()
    local found = hash(about)
    if not request.restart and found.complete == '1' then return { about = found, pace = hash(pace) } end
    if not request.restart and not found.id then
        if redis.call('EXISTS', KEYS[2]) == 1 then return { error = 'old' } end
        if redis.call('EXISTS', unpack(FIXED)) > 0 then return { error = 'stray' } end
    end
    erase()
    for name, value in pairs(request.about) do redis.call('HSET', about, name, value) end
    redis.call('HSET', about, 'id', request.new, 'position', 0, 'complete', 0)
    redis.call('XGROUP', 'CREATE', rows, GROUP, '0', 'MKSTREAM')
    return {}
end

-- Have it belong to an app, unless it does already.
function ops.bind()
    if redis.call('HGET', about, 'sdk_app_id') == '0' then
        redis.call('HSET', about, 'sdk_app_id', request.app.sdk_app_id, 'base_url', request.app.base_url)
    end
    return { about = hash(about), pace = hash(pace) }
end

function ops.look() return { about = hash(about) } end

function ops.plan()
    if position == request.upto then return {} end
    if position ~= request.after then return { error = 'incomplete' } end
    for _, row in ipairs(request.rows) do
        local line = row.line
        if row.values then
            local bucket, field = member(row.values)
            local before = last_of(bucket, field)
            add_entry(line .. '-0', row.values)
            redis.call('HSET', bucket, field, line)
            move(line, 0, PENDING)
            if before then supersede(before, line) end
        else
            add_problem(line, line, row.cause, row.document)
            move(line, 0, REJECTED)
        end
    end
    redis.call('HSET', about, 'position', request.upto)
    return {}
end

function ops.planned()
    local entries = tonumber(redis.call('HGET', counts, 'entries') or 0)
    local length = redis.call('XLEN', rows)
    if length ~= entries then return { error = 'lost', rows = math.abs(entries - length) } end
    redis.call('HSET', about, 'complete', 1, 'fingerprint', request.fingerprint)
    return {}
end

-- Why a row cannot be mended: "skipped" for ever, or "busy" now; nil when it can.
local function obstacle(row)
    local state = row.line > 0 and row.line <= position and state_of(row.line) or 0
    if state ~= PENDING and state ~= FAILED and state ~= REJECTED then return 'skipped' end
    if state == PENDING and is_claimed(row.line) then return 'busy' end
    local before = row.values and last_of(member(row.values))
    if before and before < row.line and state_of(before) == PENDING and is_claimed(before) then return 'busy' end
end

-- Mend rows, by falling line.  First all leave the members that they were of, so that none is superseded by another's
-- new values while it still has its old ones.  What became of each, in order.
function ops.mend()
    local found = redis.call('HMGET', about, 'mend', 'mended')
    if found[1] == request.once then return cjson.decode(found[2]) end
    if highest_id() > WHOLE - 3 * #request.rows then return { error = 'full' } end
    local results = {}
    for at, row in ipairs(request.rows) do results[at] = obstacle(row) or '' end
    for at, row in ipairs(request.rows) do
        if results[at] == '' then
            row.state = state_of(row.line)
            local values = row.state ~= REJECTED and values_at(id_of(row.line))
            if row.state ~= PENDING then remove_problem(row.line) end
            if values then
                remove(row.line)
                leave(row.line, values)
            end
        end
    end
    for at, row in ipairs(request.rows) do
        if results[at] == '' then
            local state = REJECTED
            if row.values then
                state = join(row.line, row.values)
            else
                add_problem(row.line, row.line, row.cause, row.document)
            end
            move(row.line, row.state, state)
            results[at] = NAMES[state]
        end
    end
    local reply = { results = results }
    redis.call('HSET', about, 'mend', request.once, 'mended', cjson.encode(reply))
    return reply
end
loaded.mend = true

local function settle(outcome)
    local id, line = outcome.id, outcome.line
    if redis.call('XACK', rows, GROUP, id) == 0 then return 0 end  -- somebody has settled it already
    if not line then
        redis.call('XDEL', rows, id)
        count('rejected', 1)
        add_problem(id, string.match(id, '^%d+'), outcome.cause, outcome.document)
        return 1
    end
    redis.call('HDEL', claims, line)
    if outcome.state == REJECTED then
        local values = values_at(id)
        remove(line)
        leave(line, values)
    end
    if outcome.document then add_problem(line, line, outcome.cause, outcome.document) end
    move(line, PENDING, outcome.state)
    return 1
end

local function note_outcomes(new)
    local slot = clock - clock % 5
    if redis.call('HINCRBY', recent, slot, new) == new then
        for _, old in ipairs(redis.call('HKEYS', recent)) do
            if (tonumber(old) or 0) < clock - 90 then redis.call('HDEL', recent, old) end
        end
    end
end

local function add_claims(found, entries)
    for _, entry in ipairs(entries) do
        local id, fields = entry and entry[1], entry and entry[2]
        local line = id and fields and line_of(id)
        if line and state_of(line) ~= PENDING then  -- somebody made the group anew
            redis.call('XACK', rows, GROUP, id)
        elseif line then
            local since = redis.call('HGET', claims, line)
            local again = since and since ~= ''
            if not again then
                since = tostring(clock)
                redis.call('HSET', claims, line, since)
            end
            found[#found + 1] = { id = id, line = line, fields = fields, since = since, again = again }
        elseif fields then
            found[#found + 1] = { id = id, fields = fields }
        end
    end
end

local function claim_left(found)
    local cursor = '0-0'
    repeat
        local room = request.room - #found
        local claimed = redis.call('XAUTOCLAIM', rows, GROUP, request.worker, request.lease, cursor, 'COUNT', room)
        cursor = claimed[1]
        add_claims(found, claimed[2])
    until cursor == '0-0' or #found >= request.room
end

local function claim_new(found)
    local room = request.room - #found
    if room == 0 then return end
    local read = redis.call('XREADGROUP', 'GROUP', GROUP, request.worker, 'COUNT', room, 'STREAMS', rows, '>')
    if read then add_claims(found, read[1][2]) end
end

-- Settle rows and claim others.  What a dead worker left can wait as long as there are new rows, but not for ever.
function ops.exchange()
    local new, found = 0, {}
    for _, outcome in ipairs(request.settled) do new = new + settle(outcome) end
    save_counts()
    if new > 0 then note_outcomes(new) end
    if request.room > 0 then
        if request.left_first then claim_left(found) end
        claim_new(found)
        if #found < request.room and not request.left_first then claim_left(found) end
    end
    if not see_worker(new) then forget_workers() end
    return add_progress({ claims = found, pace = hash(pace) })
end
loaded.exchange = true

function ops.release()
    local ids = {}
    for _, row in ipairs(request.rows) do
        if redis.call('XPENDING', rows, GROUP, row.id, row.id, 1, request.worker)[1] then
            ids[#ids + 1] = row.id
            if row.unsent then redis.call('HSET', claims, row.line, '') end
        end
    end
    claim(ids, RETURNED, YEARS)
    return {}
end

-- Renew the lease on entries, as far as nobody has taken them over.
function ops.keep()
    local wanted, mine = {}, {}
    for _, id in ipairs(request.ids) do wanted[id] = true end
    for _, id in ipairs(held_by(request.worker)) do
        if wanted[id] then mine[#mine + 1] = id end
    end
    claim(mine, request.worker, 0)
    see_worker(0)
    return {}
end

function ops.save_series()
    redis.pcall('HSET', series, request.worker, request.series)
    return {}
end

-- Give everything back that a worker holds, and note how it ended.
function ops.close()
    claim(held_by(request.worker), RETURNED, YEARS)
    redis.call('XGROUP', 'DELCONSUMER', rows, GROUP, request.worker)
    if request.info then see_worker(0) end
    return {}
end

function ops.counts() return add_progress({}) end

function ops.status()
    local found = {}
    for _, cause in ipairs(redis.call('SMEMBERS', causes)) do
        local first = redis.call('ZRANGE', key('cause:' .. cause), 0, 0)[1]
        if first then
            local document = string.match(redis.call('HGET', problems, first) or '', '^.-%z(.*)$') or '{}'
            local many = redis.call('ZCARD', key('cause:' .. cause))
            found[#found + 1] = { cause = cause, rows = many, first = first, document = document }
        end
    end
    local reply = { about = hash(about), now = clock, causes = found, workers = hash(workers), recent = hash(recent) }
    return add_progress(reply)
end

function ops.problems()
    local found = {}
    for _, name in ipairs(request.names) do
        local document = string.match(redis.call('HGET', problems, name) or '', '^.-%z(.*)$')
        if document then
            local line = tonumber(name)
            found[#found + 1] = { name = name, document = document, values = line and values_at(id_of(line)) or '' }
        end
    end
    return { problems = found }
end

-- Rows that are done, of some lines after one; and the line from which on there may be others, if any.
function ops.accepted()
    local after, most = request.after, request.most
    local page = redis.call('XRANGE', rows, string.format('%.0f-0', after + 1), position .. '-0', 'COUNT', most)
    local others = redis.call('ZRANGEBYSCORE', moved, '(' .. after, position, 'WITHSCORES', 'LIMIT', 0, most)
    local upto, entries = position, {}
    if #page == most then upto = tonumber(string.match(page[most][1], '^%d+')) end
    if #others == 2 * most then upto = math.min(upto, tonumber(others[2 * most])) end
    for _, entry in ipairs(page) do
        entries[#entries + 1] = { tonumber(string.match(entry[1], '^%d+')), value_in(entry[2]) }
    end
    for at = 1, #others, 2 do entries[#entries + 1] = { tonumber(others[at + 1]), values_at(others[at]) } end
    table.sort(entries, function(one, other) return one[1] < other[1] end)
    local found = {}
    for _, entry in ipairs(entries) do
        if entry[1] <= upto and state_of(entry[1]) == DONE then found[#found + 1] = { line = entry[1], values = entry[2] } end
    end
    return { rows = found, after = upto < position and upto or nil }
end

function ops.set_pace()
    for name, value in pairs(request.pace) do
        local version = tonumber(string.match(redis.call('HGET', pace, name) or '', '^%d+') or 0)
        redis.call('HSET', pace, name, version + 1 .. ' ' .. value)
    end
    return {}
end

function ops.note()
    if request.value then redis.call('HSET', notes, request.name, request.value) end
    return { value = redis.call('HGET', notes, request.name) or '' }
end

function ops.drop()
    local left = tonumber(redis.call('HGET', counts, 'left') or 0)
    if left > 0 and not request.anyway then return { error = 'left', rows = left } end
    erase()
    return {}
end

local function reply_to_request()
    if request.op == 'open' then return ops.open() end
    local id, complete, line = unpack(redis.call('HMGET', about, 'id', 'complete', 'position'))
    if not id then
        if redis.call('EXISTS', KEYS[2]) == 1 then return { error = 'old' } end
        if redis.call('EXISTS', unpack(FIXED)) > 0 then return { error = request.id and 'gone' or 'stray' } end
    end
    if request.id and id ~= request.id then return { error = 'gone' } end
    if not id then return { error = 'none' } end
    if loaded[request.op] and complete ~= '1' then return { error = 'incomplete' } end
    position = tonumber(line or 0)
    local reply = ops[request.op]()
    save_counts()
    return reply
end

return cjson.encode(reply_to_request())
