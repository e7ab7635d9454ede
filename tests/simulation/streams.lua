-- The commands of Redis that the scripts of a migration use, in addition to those in redis.lua.
--
-- A stream keeps its entries in an array by ascending id.  For a group it keeps the pending entries by id: consumer,
-- time and number of deliveries.  Nothing is stored twice, so a deep copy duplicates each object once.

return function(store, commands, get, text, number, moment)
    local floor, huge, concat = math.floor, math.huge, table.concat
    local insert, remove, sort = table.insert, table.remove, table.sort

    local function db() local _, data = moment() return data end
    local function ms() return floor((moment()) / 1000) end

    local function made(key, kind, fields)
        local entry = get(key, kind)
        if not entry then
            entry = fields
            entry.kind = kind
            db()[key] = entry
        end
        return entry
    end

    -- Strings and bits.

    function commands.SET(key, value)
        db()[key] = { kind = 'string', value = text(value) }
        return { ok = 'OK' }
    end

    function commands.GET(key)
        local entry = get(key, 'string')
        return entry and entry.value or false
    end

    function commands.TYPE(key)
        local entry = db()[key]
        return { ok = entry and entry.kind or 'none' }
    end

    function commands.BITFIELD_RO(key, _, _, place)
        local entry = get(key, 'bits')
        return { entry and entry.nibbles[tonumber(place:sub(2))] or 0 }
    end

    function commands.BITFIELD(key, _, _, place, value)
        local entry, at = made(key, 'bits', { nibbles = {} }), tonumber(place:sub(2))
        local old = entry.nibbles[at] or 0
        entry.nibbles[at] = number(value)
        return { old }
    end

    -- Sets: an array in the order in which members were added.

    local function place_in(entry, member)
        for at, each in ipairs(entry.members) do
            if each == member then return at end
        end
    end

    function commands.SADD(key, member)
        local entry = made(key, 'set', { members = {} })
        if place_in(entry, text(member)) then return 0 end
        insert(entry.members, text(member))
        return 1
    end

    function commands.SREM(key, member)
        local entry = get(key, 'set')
        local at = entry and place_in(entry, text(member))
        if not at then return 0 end
        remove(entry.members, at)
        if #entry.members == 0 then db()[key] = nil end
        return 1
    end

    function commands.SISMEMBER(key, member)
        local entry = get(key, 'set')
        return entry and place_in(entry, text(member)) and 1 or 0
    end

    function commands.SCARD(key)
        local entry = get(key, 'set')
        return entry and #entry.members or 0
    end

    function commands.SMEMBERS(key)
        local entry = get(key, 'set')
        return entry and { unpack(entry.members) } or {}
    end

    -- More of hashes.

    function commands.HKEYS(key)
        local entry = get(key, 'hash')
        return entry and { unpack(entry.fields) } or {}
    end

    function commands.HINCRBY(key, field, by)
        local value = tonumber(commands.HGET(key, field) or '0') + number(by)
        commands.HSET(key, field, value)
        return value
    end

    function commands.HSCAN(key) return { '0', commands.HGETALL(key) } end

    -- Streams.

    local function id_of(given, otherwise)
        if given == '-' then return 0, 0 elseif given == '+' then return huge, huge end
        local first, second = text(given):match('^(%d+)-(%d+)$')
        if first then return tonumber(first), tonumber(second) end
        return tonumber(given), otherwise
    end

    local function before(first, second, other, another)
        return first < other or (first == other and second < another)
    end

    -- The first place whose id is not before the one given.
    local function place_of(order, first, second)
        local low, high = 1, #order + 1
        while low < high do
            local middle = floor((low + high) / 2)
            if before(order[middle].first, order[middle].second, first, second) then low = middle + 1 else high = middle end
        end
        return low
    end

    local function entry_at(stream, id)
        local first, second = id_of(id, 0)
        local place = place_of(stream.order, first, second)
        local found = stream.order[place]
        if found and found.first == first and found.second == second then return found, place end
    end

    local function shown(entry) return { entry.id, { unpack(entry.fields) } } end

    function commands.XADD(key, id, ...)
        local stream = made(key, 'stream', { order = {}, groups = {}, last = { 0, 0 }, last_id = '0-0' })
        local first, second = id_of(id, 0)
        if not before(stream.last[1], stream.last[2], first, second) then
            error('ERR The ID specified in XADD is equal or smaller than the target stream top item')
        end
        local fields = { ... }
        for at = 1, #fields do fields[at] = text(fields[at]) end
        insert(stream.order, { id = id, first = first, second = second, fields = fields })
        stream.last, stream.last_id = { first, second }, id
        return id
    end

    function commands.XLEN(key)
        local stream = get(key, 'stream')
        return stream and #stream.order or 0
    end

    function commands.XDEL(key, ...)
        local stream, removed = get(key, 'stream'), 0
        if not stream then return 0 end
        for _, id in ipairs({ ... }) do
            local found, place = entry_at(stream, id)
            if found then
                remove(stream.order, place)
                removed = removed + 1
            end
        end
        return removed
    end

    function commands.XRANGE(key, least, most, _, count)
        local stream, found = get(key, 'stream'), {}
        if not stream then return found end
        local first, second = id_of(least, 0)
        local last, final = id_of(most, huge)
        for place = place_of(stream.order, first, second), #stream.order do
            local entry = stream.order[place]
            if before(last, final, entry.first, entry.second) or (count and #found >= number(count)) then break end
            found[#found + 1] = shown(entry)
        end
        return found
    end

    -- Groups.

    local function group_of(key, name)
        local stream = get(key, 'stream')
        local group = stream and stream.groups[name]
        if not group then error('NOGROUP No such key ' .. key .. ' or consumer group ' .. name) end
        return group, stream
    end

    local function pending_ids(group)
        local ids = {}
        for id in pairs(group.pending) do ids[#ids + 1] = id end
        sort(ids, function(one, other)
            local first, second = id_of(one)
            return before(first, second, id_of(other))
        end)
        return ids
    end

    local function seen(group, consumer)
        group.consumers[consumer] = ms()
    end

    function commands.XGROUP(what, key, name, given)
        if what == 'CREATE' then
            local stream = made(key, 'stream', { order = {}, groups = {}, last = { 0, 0 }, last_id = '0-0' })
            if stream.groups[name] then error('BUSYGROUP Consumer Group name already exists') end
            stream.groups[name] = { pending = {}, consumers = {}, first = 0, second = 0 }
            return { ok = 'OK' }
        end
        local group, removed = group_of(key, name), 0
        for id, one in pairs(group.pending) do
            if one.consumer == given then
                group.pending[id] = nil
                removed = removed + 1
            end
        end
        group.consumers[given] = nil
        return removed
    end

    function commands.XACK(key, name, ...)
        local stream, removed = get(key, 'stream'), 0
        local group = stream and stream.groups[name]
        for _, id in ipairs({ ... }) do
            if group and group.pending[id] then
                group.pending[id] = nil
                removed = removed + 1
            end
        end
        return removed
    end

    function commands.XPENDING(key, name, least, most, count, consumer)
        local group = group_of(key, name)
        local ids = pending_ids(group)
        if not least then
            local held, names, summary = {}, {}, {}
            for _, id in ipairs(ids) do
                local who = group.pending[id].consumer
                if not held[who] then names[#names + 1] = who end
                held[who] = (held[who] or 0) + 1
            end
            sort(names)
            for at, who in ipairs(names) do summary[at] = { who, text(held[who]) } end
            return { #ids, ids[1] or false, ids[#ids] or false, #summary > 0 and summary or false }
        end
        local found = {}
        local first, second = id_of(least, 0)
        local last, final = id_of(most, huge)
        for _, id in ipairs(ids) do
            local one, other = id_of(id)
            local pending = group.pending[id]
            local within = not before(one, other, first, second) and not before(last, final, one, other)
            if within and #found < number(count) and (not consumer or pending.consumer == consumer) then
                found[#found + 1] = { id, pending.consumer, ms() - pending.delivered, pending.times }
            end
        end
        return found
    end

    local function deliver(group, id, consumer, delivered, counted)
        local pending = group.pending[id] or { times = 0 }
        pending.consumer, pending.delivered = consumer, delivered
        if counted then pending.times = pending.times + 1 end
        group.pending[id] = pending
    end

    function commands.XCLAIM(key, name, consumer, least_idle, ...)
        local group, stream = group_of(key, name)
        local given, ids, idle, counted = { ... }, {}, 0, true
        local at = 1
        while given[at] ~= nil do
            if given[at] == 'IDLE' then
                idle, at = number(given[at + 1]), at + 1
            elseif given[at] == 'JUSTID' then
                counted = false
            else
                ids[#ids + 1] = given[at]
            end
            at = at + 1
        end
        seen(group, consumer)
        local found, delivered = {}, ms() - idle
        if delivered < 0 then delivered = ms() end
        for _, id in ipairs(ids) do
            local pending = group.pending[id]
            if pending and not entry_at(stream, id) then
                group.pending[id] = nil
            elseif pending and ms() - pending.delivered >= number(least_idle) then
                deliver(group, id, consumer, delivered, counted)
                found[#found + 1] = counted and shown((entry_at(stream, id))) or id
            end
        end
        return found
    end

    function commands.XAUTOCLAIM(key, name, consumer, least_idle, start, _, count)
        local group, stream = group_of(key, name)
        local first, second = id_of(start, 0)
        local found, deleted, left, attempts, cursor = {}, {}, number(count), 10 * number(count), '0-0'
        seen(group, consumer)
        for _, id in ipairs(pending_ids(group)) do
            local one, other = id_of(id)
            if not before(one, other, first, second) then
                if attempts == 0 or left == 0 then
                    cursor = id
                    break
                end
                attempts = attempts - 1
                local entry = entry_at(stream, id)
                if not entry then
                    group.pending[id] = nil
                    deleted[#deleted + 1] = id
                    left = left - 1
                elseif ms() - group.pending[id].delivered >= number(least_idle) then
                    deliver(group, id, consumer, ms(), true)
                    found[#found + 1] = shown(entry)
                    left = left - 1
                end
            end
        end
        return { cursor, found, deleted }
    end

    function commands.XREADGROUP(_, name, consumer, _, count, _, key)
        local group, stream = group_of(key, name)
        local found = {}
        seen(group, consumer)
        for place = place_of(stream.order, group.first, group.second), #stream.order do
            local entry = stream.order[place]
            if before(group.first, group.second, entry.first, entry.second) then
                if #found >= number(count) then break end
                group.first, group.second = entry.first, entry.second
                deliver(group, entry.id, consumer, ms(), true)
                found[#found + 1] = shown(entry)
            end
        end
        return #found > 0 and { { key, found } } or false
    end

    function commands.XINFO(what, key, name)
        if what == 'STREAM' then
            local stream = get(key, 'stream') or error('ERR no such key')
            return { 'length', #stream.order, 'last-generated-id', stream.last_id }
        end
        local group, names, found = group_of(key, name), {}, {}
        for consumer in pairs(group.consumers) do names[#names + 1] = consumer end
        sort(names)
        for at, consumer in ipairs(names) do
            local held = 0
            for _, pending in pairs(group.pending) do
                if pending.consumer == consumer then held = held + 1 end
            end
            found[at] = { 'name', consumer, 'pending', held, 'idle', ms() - group.consumers[consumer] }
        end
        return found
    end

    -- Called from Python: for each of `most` lines, its state and consumer, as "<state> <consumer> <since>".
    function store.rows(data, states, rows, claims, most)
        local found, stream = {}, data[rows]
        local group = stream and stream.groups.workers
        for line = 1, most do
            local state = data[states] and data[states].nibbles[line] or 0
            local pending = group and group.pending[line .. '-0']
            local since = data[claims] and data[claims].values[text(line)] or ''
            found[line] = concat({ state, pending and pending.consumer or '-', since ~= '' and 1 or 0 }, ' ')
        end
        return concat(found, '\n')
    end
end
