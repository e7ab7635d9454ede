-- Workers: their claims, outcomes and returned rows, and their status.

local function held_by(worker)
    local ids = {}
    for _, entry in ipairs(redis.call('XPENDING', rows, GROUP, '-', '+', 1000000, worker)) do
        ids[#ids + 1] = entry[1]
    end
    return ids
end

local function claim(ids, worker, idle)
    for first = 1, #ids, 500 do
        local part = { unpack(ids, first, math.min(first + 499, #ids)) }
        for _, word in ipairs({ 'IDLE', idle, 'JUSTID' }) do part[#part + 1] = word end
        redis.call('XCLAIM', rows, GROUP, worker, 0, unpack(part))
    end
end

-- Record a sign of life of a worker.  It is skipped when memory is full: the work does not depend on it.
local function record_worker(new)
    local known = redis.call('HGET', workers, request.worker)
    local settled = tonumber(string.match(known or '', '^%d+ (%d+)') or 0) + new
    redis.pcall('HSET', workers, request.worker, clock .. ' ' .. settled .. ' ' .. request.info)
    return known
end

-- Remove consumers that hold nothing and are silent: the next claim of a living worker creates its consumer again.
local function remove_consumers()
    for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', rows, GROUP)) do
        local consumer = object(flat)
        if consumer.pending == 0 and (consumer.name == RETURNED or consumer.idle >= request.lease) then
            redis.call('XGROUP', 'DELCONSUMER', rows, GROUP, consumer.name)
        end
    end
end

-- Remove workers that ended or were killed, except the most recently seen; add their numbers to the sum in `about`.
local function forget_workers()
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

-- Add the progress to a reply.  `sending` counts the rows of all workers, `mine` those of the requesting one.
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

local function settle(outcome)
    local id, line = outcome.id, outcome.line
    if redis.call('XACK', rows, GROUP, id) == 0 then return 0 end  -- it is settled already
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
        if line and state_of(line) ~= PENDING then  -- the consumer group was deleted and created again
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

local function claim_abandoned(found)
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

-- Settle rows and claim others.  The rows of a dead worker can wait while there are new rows, but not for ever.
function ops.exchange()
    local new, found = 0, {}
    for _, outcome in ipairs(request.settled) do new = new + settle(outcome) end
    save_counts()
    if new > 0 then note_outcomes(new) end
    if request.room > 0 then
        if request.left_first then claim_abandoned(found) end
        claim_new(found)
        if #found < request.room and not request.left_first then claim_abandoned(found) end
    end
    if not record_worker(new) then
        remove_consumers()
        forget_workers()
    end
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

-- Renew the lease on entries, except those that other workers have taken over.
function ops.keep()
    local wanted, mine = {}, {}
    for _, id in ipairs(request.ids) do wanted[id] = true end
    for _, id in ipairs(held_by(request.worker)) do
        if wanted[id] then mine[#mine + 1] = id end
    end
    claim(mine, request.worker, 0)
    record_worker(0)
    return {}
end

function ops.save_series()
    redis.pcall('HSET', series, request.worker, request.series)
    return {}
end

-- Give back all rows that a worker holds, and record its end.
function ops.close()
    claim(held_by(request.worker), RETURNED, YEARS)
    redis.call('XGROUP', 'DELCONSUMER', rows, GROUP, request.worker)
    remove_consumers()
    if request.info then record_worker(0) end
    return {}
end

function ops.counts() return add_progress({}) end
