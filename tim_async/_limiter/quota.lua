-- One endpoint's quota, shared by all processes of an app.  The theory is at the top of sharing.py.
--
-- KEYS[1]  slots: a sorted set of as many members as calls are allowed in a second, by the highest limit of the
--          processes; the score is when each is free again
-- KEYS[2]  state: a hash of everything else; its fields are FIELDS, below
-- ARGV[1]  the request, a JSON object: see request.py.  The reply is one, too: see reply.py.
--
-- Times are microseconds of this store's own clock, and spans relative to it; no clock of a caller is compared with it.
-- Numbers that may pass 10^14 (times, permits) are exact as doubles up to 2^53, but neither tostring nor cjson.encode
-- writes more than 14 digits: digits() does, and permits travel as strings, in both directions.
-- cjson.encode writes an empty table as {}, and cjson.decode reads null as a true value: both leave out what is absent.
--
-- The keys' names hold the version of this layout (LAYOUT in quota.py).  It changes when what is stored here changes its
-- meaning; a new field that may be missing, or a change of the code alone, leaves it as it is.
local SECOND = 1000500  -- a little longer, for clocks that tick differently
local DAY, LATELY, GONE, LONG_AGO, SOON = 86400000000, 10000000, 300000, 2000000, 10000
local FIELDS = {
    'at',  -- time of the last call
    'settled',  -- from when on permits are granted; 0 where nothing is known
    'unsure_until',  -- until then somebody may still know of calls made before this store knew anything
    'seq',  -- number of the last permit
    'urgent', 'bulk',  -- theoretical arrival times (GCRA): of interactive calls, and of all
    'resumed',  -- when grants began after the last gap
    'seen', 'heat',  -- last interactive request, and interactive calls/s of late
    'cut_at', 'after_cut', 'cuts',  -- the adaptive rate: last cut, calls/s right after it, number of cuts
    'refused_at', 'refused',  -- last refusal, and refused calls/s of late
    'opens',  -- end of the pause
}

local slots_key, state_key = KEYS[1], KEYS[2]
local request = cjson.decode(ARGV[1])
local limit, lead, hold = request.limit, request.lead, request.hold
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function digits(number) return string.format('%.17g', number) end

local saved, state = redis.call('HMGET', state_key, unpack(FIELDS)), {}
for i = 1, #FIELDS do
    saved[i] = tonumber(saved[i]) or 0
    state[FIELDS[i]] = saved[i]
end
-- Permits or calls of which this store knows nothing show that it has forgotten.
local forgotten = now < state.at - SECOND
if forgotten then
    -- A clock that was set back makes nonsense of every time that is known.
    for _, field in ipairs(FIELDS) do
        if field ~= 'cuts' then state[field] = 0 end
    end
end

local function add_slots(count, free)
    for _ = 1, count do
        state.seq = state.seq + 1
        redis.call('ZADD', slots_key, digits(free), digits(state.seq))
    end
end

-- Have as many slots as the limit, from the start or after it was raised; return how many more there are.  Those stay
-- after it was lowered, or for processes with a higher limit: a caller with a lower one leaves as many free.
local function fit_slots()
    local have = redis.call('ZCARD', slots_key)
    if state.settled == 0 then
        -- Nothing is known: a store that has forgotten, or a fleet that starts.  Who asks first has called nobody
        -- lately, and begins at once; the others may still know better.
        state.settled = now
        if forgotten or request.alone or request.called_lately then
            state.settled = now + request.settle
        else
            state.unsure_until = now + LONG_AGO
        end
        state.seq = now  -- numbers of permits given out before must not come again
        redis.call('DEL', slots_key)
        add_slots(limit, 0)
    elseif have < limit then
        add_slots(limit - have, now + SECOND)
    else
        return have - limit
    end
    return 0
end

-- Take a slot until a time for a call.  One whose permit is not known here, because the store has forgotten it or has
-- given its slot to another meanwhile, occupies a slot all the same; and so does one made without a permit.
local function occupy(permit, free)
    if not redis.call('ZSCORE', slots_key, permit) then
        -- It changes nothing where all slots are free later than that anyway; and none may become free sooner by it.
        if free <= now then return end
        forgotten = true
        local first = redis.call('ZRANGE', slots_key, 0, 0, 'WITHSCORES')
        if tonumber(first[2]) >= free then return end
        redis.call('ZREM', slots_key, first[1])
    end
    redis.call('ZADD', slots_key, digits(free), permit)
end

-- Hear what became of permits: a slot is free one second after its response, the credit taken off by the caller.
local function hear_outcomes()
    for _, outcome in ipairs(request.answered or {}) do
        occupy(outcome[1], now + SECOND - outcome[2])
    end
    for _, permit in ipairs(request.unused or {}) do
        -- Free when it was due, not at once: the slot's call before it may be less than a second old.
        local score = redis.call('ZSCORE', slots_key, permit)
        if score then redis.call('ZADD', slots_key, digits(score - SECOND - hold + lead), permit) end
    end
    for _, permit in ipairs(request.in_flight or {}) do
        occupy(permit, now + SECOND + hold)
    end
end

-- The adaptive rate of the fleet, calls/s: all that is known of refusals is learned here, and nowhere else.
local function learn_rate()
    -- After a cut it grows by 2(1 + t) calls/s each second, on 200 calls a second.
    local t = (now - state.cut_at) / 1000000
    local rate = math.min(request.ceiling, state.after_cut + (2 * t + t * t) * limit / 200)
    local taken = request.taken
    if request.refusals then
        -- Those of about the last second, of the fleet's calls in it.
        local decay = math.exp(math.min(0, state.refused_at - now) / 1000000)
        state.refused, state.refused_at = state.refused * decay + request.refusals, now
        taken = math.min(taken or 1, 1 - math.min(1, state.refused / limit))
    end
    if taken and now - request.refused_ago > state.cut_at and t >= 1 then
        local kept = math.min(0.95, math.max(0.4, 0.97 * taken))
        rate = math.max(request.floor, kept * math.min(limit, rate))
        state.after_cut, state.cut_at, state.cuts = rate, now, state.cuts + 1
    end
    return rate
end

-- After an outage processes are calling at their local shares.  The first that comes back finds that nothing was granted
-- until just now; nothing is granted either before all have had the time to come back and tell of their calls.
local function settle()
    local gone = now - state.settled > LONG_AGO and (now - state.bulk > GONE or now - state.resumed < GONE)
    if request.alone and gone or now < state.unsure_until and (request.alone or forgotten) then
        state.settled, state.unsure_until = now + request.settle, 0
    end
end

-- Grant what is wanted, into the reply.
local function grant(reply, rate, surplus)
    local for_bulk = request.lane == 'bulk'
    local lately = now - state.seen < LATELY
    -- Bulk leaves some slots free for calls that somebody waits for: as many as will be asked for before bulk, too, has
    -- to wait for the next ones.
    local spare = 0
    if for_bulk then
        spare = math.floor(limit / 200) + (lately and math.ceil(0.04 * state.heat) + 1 or 0)
        spare = math.min(limit - 1, math.max(request.left_by_bulk, math.min(spare, math.ceil(limit / 20))))
    else
        state.heat = state.heat * math.exp((state.seen - now) / 1000000) + request.wanted
        state.seen = now
    end
    local interval = 1000000 / rate
    local tolerance = (request.burst - 1) * interval
    if now - state.bulk > GONE then state.resumed = now end
    local permits = {}
    for number = 1, request.wanted do
        local slot = redis.call('ZRANGE', slots_key, surplus + spare, surplus + spare, 'WITHSCORES')
        local free = tonumber(slot[2]) - lead
        local due = math.max(now, state.opens, (for_bulk and state.bulk or state.urgent) - tolerance)
        if free > due then
            due = free
            reply.slot_bound = true
        end
        local wait = math.floor(due - now + 0.5)
        if request.budget and due - now > request.budget then
            reply.over = wait
            break
        end
        -- What is promised to bulk cannot go to a call that comes meanwhile.
        if for_bulk and lately and number > 1 and due - now > SOON then break end
        redis.call('ZREM', slots_key, slot[1])
        add_slots(1, due + SECOND + hold)
        state.bulk = math.max(state.bulk, due) + interval
        if not for_bulk then state.urgent = math.max(state.urgent, due) + interval end
        permits[number] = { digits(state.seq), wait }
    end
    if permits[1] then reply.permits = permits end
end

local function save_state()
    state.at = now
    local changed, size = {}, 0
    for i = 1, #FIELDS do
        local value = state[FIELDS[i]]
        if value ~= saved[i] then
            changed[size + 1], changed[size + 2] = FIELDS[i], digits(value)
            size = size + 2
        end
    end
    if size > 0 then redis.call('HSET', state_key, unpack(changed)) end
    redis.call('PEXPIRE', slots_key, DAY / 1000)
    redis.call('PEXPIRE', state_key, DAY / 1000)
end

local surplus = fit_slots()
hear_outcomes()
local rate = learn_rate()
settle()
if request.pause then state.opens = math.max(state.opens, now + request.pause) end
local reply = { rate = rate, cuts = state.cuts, opens = math.max(0, state.opens - now) }
if state.settled > now then
    reply.settling = state.settled - now
elseif (request.wanted or 0) > 0 then
    grant(reply, rate, surplus)
end
save_state()
return cjson.encode(reply)
