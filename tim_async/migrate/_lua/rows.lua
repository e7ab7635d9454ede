-- Rows: their states, their entries, and the problems of those that failed or were rejected.

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

-- Not below any line: the last lines of a file may have no entry.
local function highest_id()
    if not last then
        local found = object(redis.call('XINFO', 'STREAM', rows))
        last = math.max(position, tonumber(string.match(found['last-generated-id'], '^%d+')))
    end
    return last
end

-- Add a row to the stream again, after all others.  No id is given twice, not even by a store that has lost its latest
-- writes: a worker may still hold the entry that had that id.
local function append(line, values)
    last = highest_id() + 1
    local id = string.format('%.0f-%.0f', last, 1000000 * clock + time[2])
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

-- Some fields of a hash, and the cursor for the rest.
function ops.scan()
    local found = redis.call('HSCAN', key(request.part), request.cursor, 'COUNT', 1000)
    return { cursor = found[1], fields = found[2] }
end

-- Rows that are done, of some lines after one; and the line after which there may be more, if any.
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
        local line, values = unpack(entry)
        if line <= upto and state_of(line) == DONE then found[#found + 1] = { line = line, values = values } end
    end
    return { rows = found, after = upto < position and upto or nil }
end
