-- One endpoint's quota, shared by all processes of an app.  The theory stands at the top of sharing.py.
--
-- KEYS[1]  slots: a sorted set of as many members as calls are allowed in a second; the score is when each is free again
-- KEYS[2]  state: a hash of what else there is to know
-- Times are microseconds, by this store's own clock; the caller's clock is never compared with it.
local slots, state = KEYS[1], KEYS[2]
local limit, ceiling, burst, floor = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local left_by_bulk, lane, wanted, budget = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local lead, hold, settle = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local pause, taken, refusals, refused_ago = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local alone, called_lately = ARGV[16] == '1', ARGV[17] == '1'
local answered, unused, in_flight = tonumber(ARGV[18]), tonumber(ARGV[19]), tonumber(ARGV[20])
local item = 21

local SECOND = 1000500  -- a little longer, for clocks that tick differently
local LATELY, GONE, LONG_AGO, SOON = 10000000, 300000, 2000000, 10000

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- Lua would write such large numbers with 14 digits.
local function int(number) return string.format('%.0f', number) end

local known = redis.call('HMGET', state, 'settled', 'seq', 'urgent', 'bulk', 'cut_at', 'after_cut', 'cuts', 'opens', 'seen',
    'resumed', 'heat', 'refused', 'refused_at', 'at', 'unsure_until')
local settled, seq = tonumber(known[1]), tonumber(known[2]) or 0
local urgent, bulk = tonumber(known[3]) or 0, tonumber(known[4]) or 0
local cut_at, after_cut, cuts = tonumber(known[5]) or 0, tonumber(known[6]) or ceiling, tonumber(known[7]) or 0
local opens, seen = tonumber(known[8]) or 0, tonumber(known[9]) or 0
local resumed, heat = tonumber(known[10]) or 0, tonumber(known[11]) or 0
local refused, refused_at = tonumber(known[12]) or 0, tonumber(known[13]) or 0
local unsure_until = tonumber(known[15]) or 0

-- A clock that was set back makes nonsense of every time that is known.
local forgotten = now < (tonumber(known[14]) or 0) - SECOND
if forgotten then
    settled, urgent, bulk, cut_at, after_cut, opens, seen, resumed, refused_at = nil, 0, 0, 0, ceiling, 0, 0, 0, 0
end

local function add_slots(count, free)
    for _ = 1, count do
        seq = seq + 1
        redis.call('ZADD', slots, int(free), int(seq))
    end
end

local have = redis.call('ZCARD', slots)
-- After an outage processes are calling at their local shares.  The first that comes back finds that nothing was granted
-- until just now; nothing is granted either before all have had the time to come back and tell of their calls.
if not settled then
    -- Nothing is known: a store that has forgotten, or a fleet that starts.  Who asks first has called nobody lately,
    -- and begins at once; the others may still know better.
    settled = now
    if forgotten or alone or called_lately then settled = now + settle else unsure_until = now + LONG_AGO end
    -- Numbers of permits given out before must not come again.
    seq = now
    redis.call('DEL', slots)
    add_slots(limit, 0)
elseif have < limit then
    add_slots(limit - have, now + SECOND)
elseif have > limit then
    redis.call('ZREMRANGEBYRANK', slots, 0, have - limit - 1)
end

-- What has become of permits given out: a slot is free one second after its response, the credit taken off by the caller.
-- A call whose permit is not known here, because the store has forgotten it or has given its slot to another meanwhile,
-- occupies a slot all the same; and so does one made without a permit.
local function occupy(permit, free)
    if not redis.call('ZSCORE', slots, permit) then
        -- It changes nothing where all slots are free later than that anyway; and none may become free sooner by it.
        local first = redis.call('ZRANGE', slots, 0, 0, 'WITHSCORES')
        if free <= now then return end
        forgotten = true
        if tonumber(first[2]) >= free then return end
        redis.call('ZREM', slots, first[1])
    end
    redis.call('ZADD', slots, int(free), permit)
end
for i = item, item + 2 * answered - 1, 2 do
    occupy(ARGV[i], now + SECOND - ARGV[i + 1])
end
item = item + 2 * answered
for i = item, item + unused - 1 do
    -- Free when it was due, not at once: the slot's call before it may be less than a second old.
    local score = redis.call('ZSCORE', slots, ARGV[i])
    if score then redis.call('ZADD', slots, int(score - SECOND - hold + lead), ARGV[i]) end
end
item = item + unused
for i = item, item + in_flight - 1 do
    occupy(ARGV[i], now + SECOND + hold)
end

-- The rate: after a cut it grows by 2(1 + t) calls/s each second, on 200 calls a second.
local rate = ceiling
if after_cut < ceiling then
    local t = (now - cut_at) / 1000000
    rate = math.min(ceiling, after_cut + (2 * t + t * t) * limit / 200)
end
if refusals > 0 then
    -- Those of about the last second, of the fleet's calls in it.
    refused = refused * math.exp(math.min(0, refused_at - now) / 1000000) + refusals
    refused_at = now
    taken = math.min(taken < 0 and 1 or taken, 1 - math.min(1, refused / limit))
end
if taken >= 0 and now - refused_ago > cut_at and now - cut_at >= 1000000 then
    local kept = math.min(0.95, math.max(0.4, 0.97 * taken))
    after_cut = math.max(floor, kept * math.min(limit, rate))
    rate, cut_at, cuts = after_cut, now, cuts + 1
end
local gone = now - settled > LONG_AGO and (now - bulk > GONE or now - resumed < GONE)
if alone and gone or now < unsure_until and (alone or forgotten) then
    settled, unsure_until = now + settle, 0
end
if pause > 0 then opens = math.max(opens, now + pause) end

local settling = math.max(0, settled - now)
local reply = { int(settling), int(rate * 1000), int(math.max(0, opens - now)), int(cuts), '0', '-1' }
if wanted > 0 and settling == 0 then
    -- Bulk leaves some slots free for whoever somebody waits for: as many as will be asked for before bulk, too, has
    -- to wait for the next ones.
    local spare = 0
    local lately = now - seen < LATELY
    if lane == 'bulk' then
        spare = math.floor(limit / 200) + (lately and math.ceil(0.04 * heat) + 1 or 0)
        spare = math.min(limit - 1, math.max(left_by_bulk, math.min(spare, math.ceil(limit / 20))))
    else
        heat = heat * math.exp((seen - now) / 1000000) + wanted
        seen = now
    end
    local interval = 1000000 / rate
    local tolerance = (burst - 1) * interval
    if now - bulk > GONE then resumed = now end
    for number = 1, wanted do
        local slot = redis.call('ZRANGE', slots, spare, spare, 'WITHSCORES')
        local free = tonumber(slot[2]) - lead
        local due = math.max(now, opens, (lane == 'bulk' and bulk or urgent) - tolerance)
        if free > due then
            due = free
            reply[5] = '1'
        end
        if budget >= 0 and due - now > budget then
            reply[6] = int(due - now)
            break
        end
        -- What is promised to bulk cannot go to whoever comes meanwhile.
        if lane == 'bulk' and lately and number > 1 and due - now > SOON then break end
        redis.call('ZREM', slots, slot[1])
        add_slots(1, due + SECOND + hold)
        bulk = math.max(bulk, due) + interval
        if lane ~= 'bulk' then urgent = math.max(urgent, due) + interval end
        reply[#reply + 1] = int(seq)
        reply[#reply + 1] = int(due - now)
    end
end

redis.call('HSET', state, 'settled', int(settled), 'seq', int(seq), 'urgent', int(urgent), 'bulk', int(bulk),
    'cut_at', int(cut_at), 'after_cut', string.format('%.3f', after_cut), 'cuts', int(cuts),
    'opens', int(opens), 'seen', int(seen), 'resumed', int(resumed), 'heat', string.format('%.3f', heat),
    'refused', string.format('%.3f', refused), 'refused_at', int(refused_at), 'at', int(now),
    'unsure_until', int(unsure_until))
redis.call('PEXPIRE', slots, 86400000)
redis.call('PEXPIRE', state, 86400000)
return reply
