-- Members: the index has the last valid row of each member, and `replaced` links each row to the one before it.  Of the
-- rows before the last, those that are done are still on the stream; the values of all others are in `replaced`.

local function member(values)
    local read, found = pcall(cjson.decode, values)
    if not read or type(found) ~= 'table' then return nil end
    if type(found[1]) ~= 'string' or type(found[2]) ~= 'string' then return nil end
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

-- Remove a row from its member: the row that it superseded takes its place.
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

-- Add a row to its member, and return its state.
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

-- Whether a worker that seems alive has claimed a row.
local function is_claimed(line)
    local id = id_of(line)
    local found = redis.call('XPENDING', rows, GROUP, id, id, 1)[1]
    return found and found[2] ~= RETURNED and found[3] < request.lease
end

-- Why a row cannot be mended: "skipped" (never) or "busy" (not yet); nil when it can.
local function obstacle(row)
    local state = row.line > 0 and row.line <= position and state_of(row.line) or 0
    if state ~= PENDING and state ~= FAILED and state ~= REJECTED then return 'skipped' end
    if state == PENDING and is_claimed(row.line) then return 'busy' end
    local before = row.values and last_of(member(row.values))
    if before and before < row.line and state_of(before) == PENDING and is_claimed(before) then return 'busy' end
end

-- Mend rows, in descending order of line, and return the result for each.  First all leave their old members, so that
-- no row is superseded by another's new values while it still has its old ones.
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
