-- One endpoint's quota, shared by all processes of an app.  The theory is at the top of sharing.py.
--
-- KEYS[1]  state: a hash; its fields are FIELDS, below
-- KEYS[2]  cooling: calls that have ended and still count; "number:calls" by the time from which they no longer count
-- KEYS[3]  members: the processes, by the time until which they may be silent
-- KEYS[4]  about: a hash with a record of each member; its fields are RECORD, below
-- KEYS[5]  waiting: the members that wait for permits, in order
-- KEYS[6]  limits: the limits of active members, by the time until which they hold
-- ARGV[1]  the request, a JSON object: see request.py.  The reply is one, too: see reply.py.
--
-- Times are microseconds of the fleet's clock, which the first part keeps; requests and replies hold durations from
-- now.  No clock of a caller is compared with it.
-- Numbers that may exceed 10^14 (times) are exact as doubles up to 2^53, but neither tostring nor cjson.encode writes
-- more than 14 digits: digits() does, and in requests and replies they are strings.
-- cjson.encode writes an empty table as {}, and cjson.decode reads null as a true value: so absent values are left out.
--
-- The keys' names hold the version of this layout (LAYOUT in quota.py).  It changes when stored data changes its
-- meaning; a new field that may be missing, or a change of the code alone, does not change it.
local MS, S = 1000, 1000000
local SECOND = 1000500  -- a little longer, for clocks that tick differently
local HOLD = 2 * S  -- silence after which the calls of a process are taken to have ended
local ABSENT = 60 * S  -- silence after which an idle process is taken to have left
local MEANT = 10 * S  -- for which the limit of an active process holds
local LATELY, GONE, LONG_AGO, SOON = 10 * S, 300 * MS, 2 * S, 10 * MS
local LATE = 500 * MS  -- by which a waiting member may ask late
local BULK = 1e12  -- added to the tickets of members that wait for bulk
local DAY = 86400
local FIELDS = {
    'at', 'real',  -- the fleet's clock and the store's at the last request
    'server',  -- the server at the last request
    'epoch',  -- start of the epoch; 0 without data
    'settled',  -- time from which permits are granted
    'unsure_until',  -- time until which a member may still report calls made before the epoch
    'seq',  -- last number used, for cooling calls and for tickets
    'places',  -- members that have joined so far
    'limit',  -- calls/s that the service allows, as agreed
    'out', 'cooling', 'latest',  -- calls under way or permitted; cooling calls, and the time when the last one is free
    'urgent', 'bulk',  -- theoretical arrival times (GCRA): of interactive calls, and of all
    'resumed',  -- time of the first grant after the last gap
    'seen', 'heat',  -- last interactive request, and recent interactive calls/s
    'lowered',  -- 1 while the adaptive rate is below the limit
    'low', 'plateau', 'measured', 'changed_at', 'event_at', 'cuts',  -- the adaptive rate: see Rate in learning.py
    'refused_at', 'refused',  -- last refusal, and refused calls of the last second
    'opens',  -- end of the pause
}
local RECORD = {
    'number',  -- number of its last request
    'out',  -- its calls that are under way or permitted
    'heard', 'due',  -- times of its last request, and of the last permit then granted
    'taken',  -- permits so far
    'limit', 'binding',  -- its limit, calls/s, and whether that binds others
    'place',  -- number of members that joined before it
    'since',  -- time when it joined
    'granted',  -- permits of its last request
    -- New fields are added at the end, and may be missing: a release that does not know them drops them.
}

local state_key, cooling_key, members_key = KEYS[1], KEYS[2], KEYS[3]
local about_key, waiting_key, limits_key = KEYS[4], KEYS[5], KEYS[6]
local request = cjson.decode(ARGV[1])
local id = request.id

local function digits(number) return string.format('%.17g', number) end

local function read_record(member)
    local text = redis.call('HGET', about_key, member)
    if not text then return nil end
    local record, i = {}, 0
    for word in string.gmatch(text, '%S+') do
        i = i + 1
        if RECORD[i] then record[RECORD[i]] = tonumber(word) end  -- a later release may have written more
    end
    return record
end

local function write_record(member, record)
    local words = {}
    for i = 1, #RECORD do words[i] = digits(record[RECORD[i]]) end
    redis.call('HSET', about_key, member, table.concat(words, ' '))
end

local saved, state = redis.call('HMGET', state_key, unpack(FIELDS)), {}
for i = 1, #FIELDS do
    saved[i] = tonumber(saved[i]) or 0
    state[FIELDS[i]] = saved[i]
end
local member = read_record(id)
local stale = member and request.number <= member.number

-- The fleet's clock.  It follows this store's clock, unless that has been set: back, or forward by more than the time
-- since the caller's last request.  Then it continues from its last value.  It may fall behind, and never catches up:
-- one of its seconds would be too short.
local time = redis.call('TIME')
local real = time[1] * S + time[2]
local gap = real - state.real
local now = state.at
if now == 0 then
    now, gap = real, math.huge
elseif member and request.heard == member.number then
    local least = member.heard + request.heard_ago - state.at
    if gap > least + 2 * request.round_trip + 20 * MS then gap = least end
    now = now + math.max(0, gap)
elseif gap < 2 * S then
    now = now + math.min(50 * MS, math.max(0, gap))
else
    now = now + gap
end

-- Count calls that have ended until a time.
local function cool(free, calls)
    state.seq = state.seq + 1
    redis.call('ZADD', cooling_key, digits(free), digits(state.seq) .. ':' .. calls)
    if state.cooling == 0 then redis.call('EXPIRE', cooling_key, DAY) end
    state.cooling = state.cooling + calls
    state.latest = math.max(state.latest, free)
end

-- Whether this store has lost data, as by a failover, an eviction or a restart from an old copy.
local function has_forgotten()
    if gap > 20 * MS then
        local info = redis.pcall('INFO', 'server')
        local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
        if server then
            server = tonumber(string.sub(server, 1, 12), 16)
            local other = state.server ~= 0 and state.server ~= server
            state.server = server
            if other then return true end
        end
    end
    local lately, known = request.heard_ago < ABSENT - 10 * S, tonumber(request.epoch)
    if state.epoch == 0 then
        return redis.call('ZCARD', members_key) > 0 or lately and known > 0
    end
    if request.leaving then return false end
    -- This may be a copy from before the caller's epoch.
    if lately and (known > state.epoch or known == state.epoch and (not member or member.number < request.heard)) then
        return true
    end
    local members = redis.call('ZCARD', members_key)
    return members ~= redis.call('HLEN', about_key)
        or members == 0 and state.out > 0
        or state.cooling > 0 and redis.call('ZCARD', cooling_key) == 0
end

-- Begin an epoch.  A caller without recent calls may get permits at once; other members may still report calls.  After
-- an outage that all members have noticed they reconnect soon; otherwise earlier calls end only with time.
local function begin(forgotten)
    redis.call('DEL', cooling_key, members_key, about_key, waiting_key)
    member = nil
    state.epoch = math.max(now, tonumber(request.epoch) + 1)  -- later than any epoch of a member
    state.out, state.cooling, state.latest = 0, 0, 0
    state.settled, state.unsure_until = now, 0
    if request.alone then
        state.settled = now + request.settle
    elseif forgotten or request.called_lately then
        state.settled = now + math.max(request.settle, SECOND)
    else
        state.unsure_until = now + LONG_AGO
    end
end

-- Remove silent members: from the queue, then their calls that are out, then the members themselves.
local function sweep()
    local overdue = redis.call('ZRANGEBYSCORE', members_key, '-inf', digits(now), 'LIMIT', 0, 20)
    for _, silent in ipairs(overdue) do
        if silent ~= id then
            local record = read_record(silent)
            redis.call('ZREM', waiting_key, silent)
            if record.out > 0 and record.heard + HOLD <= now then
                state.out = state.out - record.out
                cool(now + SECOND, record.out)
                record.out, record.granted = 0, 0
                write_record(silent, record)
            end
            local until_then = record.heard + (record.out > 0 and HOLD or ABSENT)
            if until_then > now then
                redis.call('ZADD', members_key, digits(until_then), silent)
            else
                redis.call('ZREM', members_key, silent)
                redis.call('HDEL', about_key, silent)
            end
        end
    end
end

-- Drop the calls that no longer count.
local function expire_cooling()
    if state.cooling == 0 then return end
    if state.latest <= now then
        redis.call('DEL', cooling_key)
        state.cooling = 0
        return
    end
    local free = redis.call('ZRANGEBYSCORE', cooling_key, '-inf', digits(now))
    if #free == 0 then return end
    for _, entry in ipairs(free) do
        state.cooling = state.cooling - tonumber(string.match(entry, '%d+$'))
    end
    redis.call('ZREMRANGEBYSCORE', cooling_key, '-inf', digits(now))
end

-- Agree on the limit: the smallest that binds, or the largest where none does.
local function agree()
    -- First, since a store with full memory refuses a write that needs some, but not after one that needs none.
    redis.call('ZREMRANGEBYSCORE', limits_key, '-inf', '(' .. digits(now))
    local named = (request.binding and 'f:' or 'w:') .. digits(request.limit)
    local before = member and (member.binding == 1 and 'f:' or 'w:') .. digits(member.limit)
    if before and before ~= named and redis.call('ZSCORE', limits_key, before) then
        redis.call('ZADD', limits_key, digits(now + S), before)  -- members that still have it report it soon
    end
    local active = request.wanted or request.out > 0
    if active and redis.call('ZADD', limits_key, digits(now + MEANT), named) == 1 then
        redis.call('EXPIRE', limits_key, DAY)
    end
    local smallest, largest
    for _, entry in ipairs(redis.call('ZRANGEBYSCORE', limits_key, digits(now), '+inf')) do
        local limit = tonumber(string.sub(entry, 3))
        if string.sub(entry, 1, 1) == 'f' then
            smallest = math.min(smallest or limit, limit)
        else
            largest = math.max(largest or limit, limit)
        end
    end
    state.limit = smallest or largest or (state.limit > 0 and state.limit or request.limit)
end

-- Apply the caller's report: its calls that are out, and those that cool.
local function apply_report()
    if not member then
        member = { number = 0, out = 0, due = 0, taken = 0, place = state.places, since = now, granted = 0 }
        state.places = state.places + 1
    elseif request.heard ~= member.number then
        -- Its last reply was lost with its permits: their slots are free when they were due.
        member.taken = member.taken - member.granted
        if member.granted > 0 and member.due > now then cool(member.due, member.granted) end
    end
    state.out = state.out + request.out - member.out
    -- Time since the request was sent, as far as the caller's estimate of this clock is plausible.
    local ago = math.min(2 * request.round_trip, math.max(0, now - (tonumber(request.at) or now)))
    for _, freed in ipairs(request.freed or {}) do
        local free = freed[2] - ago
        if freed[1] > member.number and free > 0 then cool(now + free, freed[3]) end
    end
    member.number, member.out, member.heard, member.granted = request.number, request.out, now, 0
    member.limit, member.binding = request.limit, request.binding and 1 or 0
end

-- After an outage processes still use their fallback shares.  The first one that reconnects finds that nothing was
-- granted until now; nothing is granted before all have had the time to reconnect and report their calls.
local function settle()
    local gone = now - state.settled > LONG_AGO and (now - state.bulk > GONE or now - state.resumed < GONE)
    local news = request.alone or request.called_lately and tonumber(request.epoch) ~= state.epoch
    if request.alone and gone or now < state.unsure_until and news then
        state.settled, state.unsure_until = math.max(state.settled, now + request.settle), 0
    end
end

-- Return the adaptive rate of the fleet, calls/s, which is below the limit only after refusals.  It is learned by the
-- rules of Rate in learning.py.
local function learn_rate()
    local limit, floor = state.limit, math.min(state.limit, math.max(1, state.limit / 20))
    local function value()
        if state.lowered == 0 then return limit end
        local beyond = (now - state.changed_at) / S - 2
        if beyond < 0 then return state.plateau - (state.plateau - state.low) * (-beyond / 2) ^ 3 end
        local gentle = math.min(beyond, 2.5)
        local rate = state.plateau + limit * (gentle ^ 3 / 150 + (beyond - gentle) / 8)
        if rate < limit then return rate end
        state.lowered = 0
        return limit
    end
    local function fall(low)
        state.low = math.max(floor, low)
        state.plateau = math.max(state.low, math.min(state.measured, state.low / 0.85))
        state.changed_at, state.lowered = now, 1
    end
    local rate = value()
    local begins = now - state.event_at >= S
    if request.accepted and begins then
        state.event_at, state.measured = now, rate
        fall(math.min(0.95, math.max(0.4, 0.97 * request.accepted)) * rate)
    end
    local refusals = request.refusals
    if refusals then
        local decay = math.max(0, 1 - (now - state.refused_at) / S)
        state.refused, state.refused_at = state.refused * decay + refusals, now
        local answered = state.cooling
        if state.lowered == 0 or state.refused >= 0.03 * answered then
            if begins then
                if now - request.refused_ago > state.event_at then
                    if state.lowered == 0 then state.cuts = state.cuts + 1 end
                    state.event_at = now
                    state.measured = math.min(rate, math.max(answered, 0.9 * rate))
                    fall(0.99 * state.measured)
                end
            else
                fall(rate - refusals)
            end
        end
    end
    return math.min(limit, value())
end

-- Put the permits granted into the reply, or the time to ask again.
local function grant(reply, rate)
    local limit, strict = state.limit, request.strict
    local for_bulk = request.lane == 'bulk'
    local lately = now - state.seen < LATELY
    local free = math.floor(limit) - state.out - state.cooling
    local pace = limit * (strict and 1 or 1.1)
    if state.lowered == 1 then
        free = math.min(free, math.floor(rate) - state.cooling)
        pace = rate
    end
    -- Bulk leaves some slots free for interactive calls: as many as will be requested before bulk, too, must wait for
    -- the next ones.
    if for_bulk then
        local spare = math.floor(limit / 200) + (lately and math.ceil(0.04 * state.heat) + 1 or 0)
        local left = math.ceil((1 - request.bulk_share) * limit - 1e-6)
        free = free - math.min(math.floor(limit) - 1, math.max(left, math.min(spare, math.ceil(limit / 20))))
    else
        state.heat = state.heat * math.exp((state.seen - now) / S)
        state.seen = now
    end
    -- Members that already wait go first.
    local ticket, ahead, wanted = nil, 0, request.wanted
    local waiting = redis.call('ZCARD', waiting_key)
    if waiting > 0 then
        ticket = tonumber(redis.call('ZSCORE', waiting_key, id) or nil)
        if ticket and (ticket >= BULK) ~= for_bulk then
            redis.call('ZREM', waiting_key, id)
            ticket = nil
            waiting = waiting - 1
        end
        local all = ticket and waiting or waiting + 1
        if all > 1 then
            -- Equal parts: no member gets more at once than all can get.
            local part = math.ceil(limit * request.horizon / S / all)
            wanted = math.min(wanted, math.max(1, part, for_bulk and math.ceil(limit / 50) or 0))
        end
        ahead = ticket and redis.call('ZRANK', waiting_key, id)
            or redis.call('ZCOUNT', waiting_key, '-inf', for_bulk and '+inf' or '(' .. digits(BULK))
    end

    local interval = S / pace
    local tolerance = (math.max(4, limit / (strict and 50 or 20)) - 1) * interval
    if now - state.bulk > GONE then state.resumed = now end
    -- The cooling calls in order, read as far as needed: those of `entry` are free at `free_at`, `left` of them not yet
    -- assigned.
    local page, place, left, free_at, entry, used = {}, 0, 0, now, nil, 0
    local read = 0
    local function put_back()
        if used > 0 then
            redis.call('ZREM', cooling_key, entry)
            read = read - 1
            state.cooling = state.cooling - used
            local rest = tonumber(string.match(entry, '%d+$')) - used
            if rest > 0 then
                cool(free_at, rest)
                state.cooling = state.cooling - rest
                read = read + 1
            end
        end
        used = 0
    end
    local function next_slot(calls, take)
        while calls > 0 do
            if left == 0 then
                put_back()
                if place == #page then
                    page, place = redis.call('ZRANGE', cooling_key, read, read + 31, 'WITHSCORES'), 0
                    if #page == 0 then return nil end
                end
                entry, free_at = page[place + 1], tonumber(page[place + 2])
                left, place, read = tonumber(string.match(entry, '%d+$')), place + 2, read + 1
            end
            local some = math.min(left, calls)
            left, calls = left - some, calls - some
            if take then used = used + some end
        end
        return free_at
    end

    local skipped = ahead - free
    local known = true
    if skipped > 0 then
        free = 0
        known = skipped <= 64 and next_slot(skipped, false) ~= nil
    else
        free = -skipped
    end
    local runs, granted, due = {}, 0, now
    local wait
    while granted < wanted do
        local slot = now
        if free == 0 then
            slot = known and next_slot(1, false)
            if not slot then
                -- The time when it is free will be known long before.
                wait = math.max(100 * MS, skipped * S / rate)
                break
            end
        end
        local paced = for_bulk and state.bulk or state.urgent
        -- Members in front have their times reserved, like their slots.
        if ahead > 0 then paced = math.max(paced, now) + ahead * interval end
        due = math.max(now, slot - request.lead, state.opens, paced - tolerance)
        local due_in = due - now
        if due_in > request.horizon or request.budget and due_in > request.budget then
            wait = due_in
            break
        end
        -- A permit granted to bulk is lost for interactive calls that come meanwhile.
        if for_bulk and lately and granted > 0 and due_in > SOON then
            break
        end
        if free > 0 then
            free = free - 1
        else
            used = used + 1
            reply.slot_bound = true
        end
        state.out = state.out + 1
        state.bulk = math.max(state.bulk, due) + interval
        if not for_bulk then state.urgent = math.max(state.urgent, due) + interval end
        granted = granted + 1
        due_in = math.ceil(due_in)
        local run = runs[#runs]
        if run and due_in - run[1] < MS then
            run[1], run[2] = due_in, run[2] + 1
        else
            runs[#runs + 1] = { due_in, 1 }
        end
    end
    put_back()

    if granted > 0 then
        reply.permits = runs
        member.out, member.granted, member.due = member.out + granted, granted, due
        member.taken = member.taken + granted
        if not for_bulk then state.heat = state.heat + granted end
        if ticket then redis.call('ZREM', waiting_key, id) end
        return
    end
    if request.budget and wait > request.budget then
        reply.again, reply.over = math.ceil(wait), true
        if ticket then redis.call('ZREM', waiting_key, id) end
        return
    end
    if not ticket then
        state.seq = state.seq + 1
        redis.call('ZADD', waiting_key, digits(state.seq + (for_bulk and BULK or 0)), id)
        redis.call('EXPIRE', waiting_key, DAY)
    end
    -- Early enough for the round trip; a member that waits long asks in between, since others, or this store, may fail.
    wait = math.max(MS, wait - request.horizon / 2)
    if wait > 50 * MS and ahead > 0 then wait = math.min(600 * MS, 0.9 * wait) end
    reply.again = math.ceil(wait)
end

local function save()
    state.at, state.real = now, real
    local changed, size = {}, 0
    for i = 1, #FIELDS do
        local value = state[FIELDS[i]]
        if value ~= saved[i] then
            changed[size + 1], changed[size + 2] = FIELDS[i], digits(value)
            size = size + 2
        end
    end
    if size > 0 then redis.call('HSET', state_key, unpack(changed)) end
    if math.floor(saved[1] / (3600 * S)) ~= math.floor(now / (3600 * S)) then
        for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], DAY) end
    end
end

if stale then
    -- The request was repeated, or overtaken by a later one.
    return cjson.encode({ number = member.number })
end
local forgotten = has_forgotten()
if forgotten or state.epoch == 0 then begin(forgotten) end
sweep()
expire_cooling()
agree()
apply_report()
settle()
local rate = learn_rate()
if request.pause then state.opens = math.max(state.opens, now + request.pause) end
local reply = {
    epoch = digits(state.epoch), now = digits(now), number = request.number,
    limit = state.limit, rate = rate, cuts = state.cuts,
    members = redis.call('ZCARD', members_key), place = member.place,  -- a member that joins now is not counted
}
if state.opens > now then reply.opens = state.opens - now end
local silent_for = ABSENT
if state.settled > now then
    reply.settling = state.settled - now
elseif (request.wanted or 0) > 0 then
    grant(reply, rate)
    if reply.again then silent_for = reply.again + LATE end
else
    redis.call('ZREM', waiting_key, id)
end
if request.leaving and request.out == 0 then
    redis.call('ZREM', members_key, id)
    redis.call('ZREM', waiting_key, id)
    redis.call('HDEL', about_key, id)
else
    if member.out > 0 then silent_for = math.min(silent_for, HOLD) end
    local is_new = redis.call('ZADD', members_key, digits(now + silent_for), id) == 1
    write_record(id, member)
    if is_new then
        redis.call('EXPIRE', members_key, DAY)
        redis.call('EXPIRE', about_key, DAY)
    end
end
save()
return cjson.encode(reply)
