-- The commands of Redis that quota.lua uses, on plain tables, so that a script call costs no server and no real time.
--
-- A sorted set is two arrays in order (members, scores) and a table of scores; a hash is an array of its fields, in the
-- order in which they were set, and a table of values.  Scripts receive replies as Redis converts them: nil is false, a
-- score is a string of the fewest digits that identify the double.
-- cjson behaves as in Redis: numbers are written with 14 digits, an empty table is {}, null is a true value.  Objects
-- are written in the order of their fields' names, because the order of a Lua table does not depend on the seed alone.

local floor, huge, concat, format = math.floor, math.huge, table.concat, string.format
local insert, remove, sort = table.insert, table.remove, table.sort

local function text(value)
    if type(value) == 'number' then
        if value == floor(value) and value > -1e15 and value < 1e15 then return format('%d', value) end
        return format('%.17g', value)
    end
    return value
end

local function score_text(score)
    if score == huge then return 'inf' elseif score == -huge then return '-inf' end
    if score == floor(score) and score > -1e15 and score < 1e15 then return format('%d', score) end
    for digits = 15, 17 do
        local shown = format('%.' .. digits .. 'g', score)
        if tonumber(shown) == score then return shown end
    end
end

local function number(value)
    if type(value) == 'number' then return value end
    if value == 'inf' or value == '+inf' then return huge elseif value == '-inf' then return -huge end
    return tonumber(value) or error('ERR value is not a valid float: ' .. tostring(value))
end

-- Keys.

local db, now_us, run_id  -- of the current call
local commands = {}

local function get(key, kind)
    local entry = db[key]
    if entry == nil then return nil end
    if entry.kind ~= kind then error('WRONGTYPE Operation against a key holding the wrong kind of value') end
    return entry
end

local function drop_if_empty(key, entry)
    if #(entry.members or entry.fields) == 0 then db[key] = nil end
end

-- Hashes.

local function hash_for_writing(key)
    local entry = get(key, 'hash')
    if not entry then
        entry = { kind = 'hash', fields = {}, values = {} }
        db[key] = entry
    end
    return entry
end

function commands.HSET(key, ...)
    local entry, added, given = hash_for_writing(key), 0, { ... }
    for i = 1, #given, 2 do
        local field = text(given[i])
        if entry.values[field] == nil then
            added = added + 1
            entry.fields[#entry.fields + 1] = field
        end
        entry.values[field] = text(given[i + 1])
    end
    return added
end

function commands.HGET(key, field)
    local entry = get(key, 'hash')
    return entry and entry.values[text(field)] or false
end

function commands.HMGET(key, ...)
    local entry, found, given = get(key, 'hash'), {}, { ... }
    for i = 1, #given do
        found[i] = entry and entry.values[text(given[i])] or false
    end
    return found
end

function commands.HGETALL(key)
    local entry, found = get(key, 'hash'), {}
    if entry then
        for _, field in ipairs(entry.fields) do
            found[#found + 1] = field
            found[#found + 1] = entry.values[field]
        end
    end
    return found
end

function commands.HLEN(key)
    local entry = get(key, 'hash')
    return entry and #entry.fields or 0
end

function commands.HDEL(key, ...)
    local entry, removed = get(key, 'hash'), 0
    if not entry then return 0 end
    for _, given in ipairs({ ... }) do
        local field = text(given)
        if entry.values[field] ~= nil then
            entry.values[field] = nil
            removed = removed + 1
            for i, each in ipairs(entry.fields) do
                if each == field then
                    remove(entry.fields, i)
                    break
                end
            end
        end
    end
    drop_if_empty(key, entry)
    return removed
end

-- Sorted sets.

-- The first place whose (score, member) is not before the one given.
local function place_of(entry, score, member)
    local members, scores = entry.members, entry.scores
    local low, high = 1, #members + 1
    while low < high do
        local middle = floor((low + high) / 2)
        local there = scores[middle]
        if there < score or (there == score and members[middle] < member) then low = middle + 1 else high = middle end
    end
    return low
end

local function take_out(entry, member)
    local place = place_of(entry, entry.score_of[member], member)
    remove(entry.members, place)
    remove(entry.scores, place)
    entry.score_of[member] = nil
end

local function put_in(entry, score, member)
    local place = place_of(entry, score, member)
    insert(entry.members, place, member)
    insert(entry.scores, place, score)
    entry.score_of[member] = score
end

local FLAGS = { NX = true, XX = true, GT = true, LT = true, CH = true }

function commands.ZADD(key, ...)
    local given, first, flags = { ... }, 1, {}
    while FLAGS[given[first]] do
        flags[given[first]] = true
        first = first + 1
    end
    local entry, added, changed = get(key, 'zset'), 0, 0
    if not entry then
        if flags.XX then return 0 end
        entry = { kind = 'zset', members = {}, scores = {}, score_of = {} }
        db[key] = entry
    end
    for i = first, #given, 2 do
        local score, member = number(given[i]), text(given[i + 1])
        local old = entry.score_of[member]
        if old == nil then
            if not flags.XX then
                put_in(entry, score, member)
                added = added + 1
            end
        elseif old ~= score and not flags.NX and not (flags.GT and score <= old) and not (flags.LT and score >= old) then
            take_out(entry, member)
            put_in(entry, score, member)
            changed = changed + 1
        end
    end
    return flags.CH and added + changed or added
end

function commands.ZREM(key, ...)
    local entry, removed = get(key, 'zset'), 0
    if not entry then return 0 end
    for _, given in ipairs({ ... }) do
        local member = text(given)
        if entry.score_of[member] ~= nil then
            take_out(entry, member)
            removed = removed + 1
        end
    end
    drop_if_empty(key, entry)
    return removed
end

function commands.ZCARD(key)
    local entry = get(key, 'zset')
    return entry and #entry.members or 0
end

function commands.ZSCORE(key, member)
    local entry = get(key, 'zset')
    local score = entry and entry.score_of[text(member)]
    return score and score_text(score) or false
end

function commands.ZRANK(key, member)
    local entry = get(key, 'zset')
    local score = entry and entry.score_of[text(member)]
    return score and place_of(entry, score, text(member)) - 1 or false
end

function commands.ZINCRBY(key, by, member)
    local entry = get(key, 'zset')
    local score = (entry and entry.score_of[text(member)] or 0) + number(by)
    commands.ZADD(key, score, member)
    return score_text(score)
end

-- The places whose scores lie between two bounds; "(" before one leaves it out.
local function between(entry, least, most)
    least, most = text(least), text(most)
    local scores, first, last = entry.scores, nil, nil
    local open_least, open_most = least:sub(1, 1) == '(', most:sub(1, 1) == '('
    local low_bound = number(open_least and least:sub(2) or least)
    local high_bound = number(open_most and most:sub(2) or most)
    local low, high = 1, #scores + 1
    while low < high do
        local middle = floor((low + high) / 2)
        local before = scores[middle] < low_bound or (open_least and scores[middle] == low_bound)
        if before then low = middle + 1 else high = middle end
    end
    first = low
    high = #scores + 1
    while low < high do
        local middle = floor((low + high) / 2)
        local within = scores[middle] < high_bound or (not open_most and scores[middle] == high_bound)
        if within then low = middle + 1 else high = middle end
    end
    last = low - 1
    return first, last
end

local function by_rank(entry, start, stop)
    local size = #entry.members
    start, stop = number(start), number(stop)
    if start < 0 then start = math.max(0, size + start) end
    if stop < 0 then stop = size + stop end
    return start + 1, math.min(size, stop + 1)
end

local function listed(entry, first, last, with_scores)
    local found, size = {}, 0
    for place = first, last do
        size = size + 1
        found[size] = entry.members[place]
        if with_scores then
            size = size + 1
            found[size] = score_text(entry.scores[place])
        end
    end
    return found
end

local function options_of(given)
    local options, i = {}, 1
    while given[i] ~= nil do
        local name = given[i]
        if name == 'LIMIT' then
            options.offset, options.count = number(given[i + 1]), number(given[i + 2])
            i = i + 3
        elseif name == 'WITHSCORES' or name == 'BYSCORE' then
            options[name] = true
            i = i + 1
        else
            error('ERR the stand-in for the store does not know the option ' .. tostring(name))
        end
    end
    return options
end

local function range(entry, first, last, options)
    if options.offset then
        first = first + options.offset
        if options.count >= 0 then last = math.min(last, first + options.count - 1) end
    end
    return listed(entry, first, last, options.WITHSCORES)
end

function commands.ZRANGE(key, start, stop, ...)
    local entry, options = get(key, 'zset'), options_of({ ... })
    if not entry then return {} end
    if options.BYSCORE then
        local first, last = between(entry, start, stop)
        return range(entry, first, last, options)
    end
    local first, last = by_rank(entry, start, stop)
    return listed(entry, first, last, options.WITHSCORES)
end

function commands.ZRANGEBYSCORE(key, least, most, ...)
    local entry = get(key, 'zset')
    if not entry then return {} end
    local first, last = between(entry, least, most)
    return range(entry, first, last, options_of({ ... }))
end

function commands.ZCOUNT(key, least, most)
    local entry = get(key, 'zset')
    if not entry then return 0 end
    local first, last = between(entry, least, most)
    return math.max(0, last - first + 1)
end

local function remove_places(key, entry, first, last)
    local size, gone = #entry.members, math.max(0, last - first + 1)
    if gone == 0 then return 0 end
    for place = first, last do
        entry.score_of[entry.members[place]] = nil
    end
    for place = first, size do
        entry.members[place] = entry.members[place + gone]
        entry.scores[place] = entry.scores[place + gone]
    end
    drop_if_empty(key, entry)
    return gone
end

function commands.ZREMRANGEBYSCORE(key, least, most)
    local entry = get(key, 'zset')
    if not entry then return 0 end
    local first, last = between(entry, least, most)
    return remove_places(key, entry, first, last)
end

function commands.ZREMRANGEBYRANK(key, start, stop)
    local entry = get(key, 'zset')
    if not entry then return 0 end
    local first, last = by_rank(entry, start, stop)
    return remove_places(key, entry, first, last)
end

-- Everything else.

function commands.DEL(...)
    local removed = 0
    for _, key in ipairs({ ... }) do
        if db[key] then
            db[key] = nil
            removed = removed + 1
        end
    end
    return removed
end
commands.UNLINK = commands.DEL

function commands.EXISTS(...)
    local found = 0
    for _, key in ipairs({ ... }) do
        if db[key] then found = found + 1 end
    end
    return found
end

function commands.PEXPIRE(key, ms)
    if not db[key] then return 0 end
    db[key].expires = now_us + number(ms) * 1000
    return 1
end

function commands.EXPIRE(key, seconds) return commands.PEXPIRE(key, number(seconds) * 1000) end

function commands.TIME()
    return { format('%d', floor(now_us / 1000000)), format('%d', now_us % 1000000) }
end

function commands.INFO()
    return '# Server\r\nrun_id:' .. run_id .. '\r\nredis_mode:standalone\r\n'
end

local redis = {}

function redis.call(name, ...)
    local command = commands[name:upper()]
    if not command then error('ERR the stand-in for the store does not know the command ' .. name) end
    return command(...)
end

function redis.pcall(...)
    local ended, result = pcall(redis.call, ...)
    return ended and result or { err = result }
end

function redis.error_reply(message) return { err = message } end
function redis.status_reply(message) return { ok = message } end
local sha1  -- Python's
function redis.sha1hex(data) return sha1(data) end
function redis.log() end

-- cjson.

local cjson = { null = setmetatable({}, { __tostring = function() return 'null' end }) }
local ESCAPES = { ['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t', ['/'] = '\\/' }

local encode
local function encode_table(value)
    local size, fields = 0, {}
    for field in pairs(value) do
        size = size + 1
        fields[size] = field
    end
    if size == 0 then return '{}' end
    local parts = {}
    if size == #value then
        for i = 1, size do parts[i] = encode(value[i]) end
        return '[' .. concat(parts, ',') .. ']'
    end
    for i = 1, size do
        local field = fields[i]
        parts[i] = encode(type(field) == 'number' and format('%.14g', field) or field) .. ':' .. encode(value[field])
    end
    sort(parts)
    return '{' .. concat(parts, ',') .. '}'
end

function encode(value)
    local kind = type(value)
    if kind == 'number' then
        if value ~= value or value == huge or value == -huge then error('Cannot serialise number: NaN or Inf') end
        return format('%.14g', value)
    elseif kind == 'string' then
        return '"' .. value:gsub('[%c"\\/]', function(c) return ESCAPES[c] or format('\\u%04x', c:byte()) end) .. '"'
    elseif kind == 'table' then
        return value == cjson.null and 'null' or encode_table(value)
    end
    return tostring(value)
end
cjson.encode = encode

local WORDS = { ['true'] = true, ['false'] = false, ['null'] = cjson.null }
local decode

local MEANT = { b = '\b', f = '\f', n = '\n', r = '\r', t = '\t', ['"'] = '"', ['\\'] = '\\', ['/'] = '/' }

local function decode_string(data, at)
    local stop = data:find('["\\]', at)
    if data:byte(stop) == 34 then return data:sub(at, stop - 1), stop + 1 end
    local parts = {}
    while data:byte(stop) ~= 34 do
        local letter = data:sub(stop + 1, stop + 1)
        parts[#parts + 1] = data:sub(at, stop - 1)
        if letter == 'u' then
            local code = tonumber(data:sub(stop + 2, stop + 5), 16)
            if code > 127 then error('an escape of a character that is not ASCII: no request has one') end
            parts[#parts + 1] = string.char(code)
            at = stop + 6
        else
            parts[#parts + 1] = MEANT[letter]
            at = stop + 2
        end
        stop = data:find('["\\]', at)
    end
    parts[#parts + 1] = data:sub(at, stop - 1)
    return concat(parts), stop + 1
end

function decode(data, at)
    local c = data:byte(at)
    if c == 123 then
        local result = {}
        at = at + 1
        if data:byte(at) == 125 then return result, at + 1 end
        while true do
            local field, value
            field, at = decode_string(data, at + 1)
            value, at = decode(data, at + 1)
            result[field] = value
            c = data:byte(at)
            at = at + 1
            if c == 125 then return result, at end
        end
    elseif c == 91 then
        local result, size = {}, 0
        at = at + 1
        if data:byte(at) == 93 then return result, at + 1 end
        while true do
            size = size + 1
            result[size], at = decode(data, at)
            c = data:byte(at)
            at = at + 1
            if c == 93 then return result, at end
        end
    elseif c == 34 then
        return decode_string(data, at + 1)
    end
    local word = data:match('^%a+', at)
    if word then return WORDS[word], at + #word end
    local digits = data:match('^[-+.%deE]+', at)
    return tonumber(digits), at + #digits
end

-- Only what json.dumps with the separators "," and ":" writes.
function cjson.decode(data) return (decode(data, 1)) end

-- struct: as much of it as a script uses.

local struct = {}

function struct.pack(format_, ...)
    if format_ ~= '>I4I4' then error('the stand-in for the store does not pack ' .. format_) end
    local bytes = {}
    for _, value in ipairs({ ... }) do
        for shift = 24, 0, -8 do bytes[#bytes + 1] = string.char(floor(value / 2 ^ shift) % 256) end
    end
    return concat(bytes)
end

-- What Python calls.

local store = {}

-- A script, ready to be run: it sees what Redis lets it see, and no more.
function store.load(source)
    local chunk, message = loadstring(source)
    if not chunk then error(message) end
    local globals = {
        redis = redis, cjson = cjson, string = string, math = math, table = table, unpack = unpack,
        tonumber = tonumber, tostring = tostring, ipairs = ipairs, pairs = pairs, next = next, type = type,
        select = select, pcall = pcall, error = error, assert = assert, struct = struct,
    }
    setfenv(chunk, setmetatable(globals, {
        __index = function(_, name) error('Script attempted to access nonexistent global variable ' .. name) end,
        __newindex = function(_, name) error('Attempt to modify a readonly table: ' .. name) end,
    }))
    return function(data, keys, argument)
        rawset(globals, 'KEYS', keys)
        rawset(globals, 'ARGV', { argument })
        return chunk()
    end
end

function store.new() return {} end

-- More commands: `add` receives them all, how a key is read and an argument becomes text, and the time and the data.
function store.extend(add, digest)
    sha1 = digest
    add(store, commands, get, text, number, function() return now_us, db end)
end

local function expire(data, time)
    for key, entry in pairs(data) do
        if entry.expires and entry.expires <= time then data[key] = nil end
    end
end

function store.run(script, data, time, id, keys, argument)
    expire(data, time)
    db, now_us, run_id = data, time, id
    return script(data, keys, argument)
end

local function copied(value)
    if type(value) ~= 'table' then return value end
    local copy = {}
    for field, each in pairs(value) do copy[field] = copied(each) end
    return copy
end

store.copy = copied

function store.names(data)
    local names = {}
    for key in pairs(data) do names[#names + 1] = key end
    sort(names)
    return concat(names, '\n')
end

function store.evict(data, key) data[key] = nil end

function store.split(joined)
    local keys = {}
    for key in joined:gmatch('[^\n]+') do keys[#keys + 1] = key end
    return keys
end

-- All of a key: JSON, scores as text of as many digits as it takes.
function store.dump(data, key)
    local entry, shown = data[key], {}
    if not entry then return 'null' end
    if entry.kind == 'hash' then
        for i, field in ipairs(entry.fields) do shown[i] = { field, entry.values[field] } end
    else
        for i, member in ipairs(entry.members) do shown[i] = { member, score_text(entry.scores[i]) } end
    end
    return encode({ entry.kind, shown })
end

-- How many elements a store holds.
function store.size(data)
    local size = 0
    for _, entry in pairs(data) do size = size + #(entry.members or entry.fields or entry.order or {}) end
    return size
end

return store
