-- The migration as a whole: its beginning, its status, its end; and the reply to the request.

-- Erase the migration of this name, also a damaged one.
local function erase()
    if redis.call('TYPE', causes).ok == 'set' then
        for _, cause in ipairs(redis.call('SMEMBERS', causes)) do redis.call('UNLINK', key('cause:' .. cause)) end
    end
    redis.call('UNLINK', layout, unpack(FIXED))
    for first = 0, BUCKETS - 1, 1024 do
        local names = {}
        for bucket = first, first + 1023 do names[#names + 1] = key('index:' .. bucket) end
        redis.call('UNLINK', unpack(names))
    end
end

-- Whether an older or a newer release has a migration under this name: "old", "new" or nil.
local function foreign_layout()
    local found = tonumber(redis.call('GET', layout) or version)
    if redis.call('EXISTS', first) == 1 or found < tonumber(version) then return 'old' end
    return found > tonumber(version) and 'new' or nil
end

-- Begin a migration; if all its rows are planned already, return its identity instead.
function ops.open()
    local other = foreign_layout()
    if other then return { error = other } end
    local found = hash(about)
    if not request.restart and found.complete == '1' then return { about = found, pace = hash(pace) } end
    if not request.restart and not found.id then
        if redis.call('EXISTS', unpack(FIXED)) > 0 then return { error = 'stray' } end
    end
    erase()
    for name, value in pairs(request.about) do redis.call('HSET', about, name, value) end
    redis.call('HSET', about, 'id', request.new, 'position', 0, 'complete', 0)
    redis.call('SET', layout, version)
    redis.call('XGROUP', 'CREATE', rows, GROUP, '0', 'MKSTREAM')
    return {}
end

-- Bind the migration to an app, unless it is bound already.
function ops.bind()
    if redis.call('HGET', about, 'sdk_app_id') == '0' then
        redis.call('HSET', about, 'sdk_app_id', request.app.sdk_app_id, 'base_url', request.app.base_url)
    end
    return { about = hash(about), pace = hash(pace) }
end

function ops.look() return { about = hash(about) } end

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
    return add_progress({
        about = hash(about), now = clock, workers = hash(workers), recent = hash(recent), causes = found,
    })
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

-- The sections of INFO, as far as the user may read them.
function ops.info()
    local found = {}
    for _, section in ipairs(request.sections) do
        local text = redis.pcall('INFO', section)
        if type(text) == 'string' then found[#found + 1] = text end
    end
    return { info = table.concat(found) }
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
        local other = foreign_layout()
        if other then return { error = other } end
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
