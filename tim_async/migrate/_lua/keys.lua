-- A migration that many machines share.  The theory is at the top of _redis.py.
--
-- KEYS     all fixed keys, in the order below, so that a cluster sees them; they are in one slot.  The buckets of the
--          index and the rows of a cause cannot be named in advance; they have the same prefix, and so the same slot
-- ARGV[1]  the request, a JSON object; `op` names one of the operations below.  The reply is a JSON object, too
--
-- The names of the keys contain the version of this layout (LAYOUT in _redis_reader.py), which changes when the meaning
-- of the stored data does.  `layout` holds it under a name without a version, for older and newer releases; `first` is
-- the key of releases before that.  Each operation can be executed twice: the link repeats it when its reply was lost.
--
-- While a slot moves to another node of a cluster key by key, a node refuses scripts that name a key it does not have
-- (TRYAGAIN).  `first` does not exist, so both nodes refuse this one until the slot has moved, with all of its keys.
--
-- Commands that free memory come first where possible, so that a store whose memory is full allows the rest, too.
-- cjson.encode writes 14 digits at most, so times and entry ids are strings; it writes an empty table as {}, and
-- cjson.decode reads null as a true value, so absent values are left out on both sides.
local GROUP, RETURNED = 'workers', 'returned'
local PENDING, DONE, LOWERED, FAILED, REJECTED, SUPERSEDED = 1, 2, 3, 4, 5, 6  -- State + 1; 0 means no row
local NAMES = { 'left', 'done', 'lowered', 'failed', 'rejected', 'superseded' }
local BUCKETS = 16384  -- hashes of the index: small enough for the store's compact encoding
local MOST_CAUSES, MOST_WORKERS = 1000, 1000
local YEARS, WHOLE = 100000000000, 2 ^ 53

local request = cjson.decode(ARGV[1])
local about  -- a hash: the migration's identity
local first, layout
local rows  -- a stream with a group: each row that is sent, or was sent
local counts  -- a hash: the rows by state, and the entries that must be on the stream
local states  -- a bit field: four bits for each line
local moved  -- a sorted set: the entries whose id is not that of their line, with the line as score
local replaced  -- a hash: by line, the row that this row superseded, as "<line> <values>"
local claims  -- a hash: by line, the time of a pending row's first claim; "" when it was given back unsent
local problems  -- a hash: failed and rejected rows, as "<cause>\0<document>", by line or foreign id
local causes  -- a set: the causes of problems.  For each, cause:... is a sorted set of its rows by line
local workers  -- a hash: by worker, "<seen> <rows> <document>"
local series  -- a hash: by worker, its calls over time
local recent  -- a hash: the outcomes of the last minute, by time
local pace  -- a hash: the rate and the share that were set, as "<version> <value>"
local notes  -- a hash: texts by name
about, first, layout, rows, counts, states, moved, replaced, claims, problems, causes, workers, series, recent,
    pace, notes = unpack(KEYS)
local FIXED = {
    about, rows, counts, states, moved, replaced, claims, problems, causes, workers, series, recent, pace, notes,
}
local prefix, version = string.match(about, '^(.*:(%d+):)about$')
local function key(name) return prefix .. name end

local time = redis.call('TIME')
local clock = tonumber(time[1])
local position  -- the last line that was planned; beyond it an entry is foreign, unless it is in `moved`
local changes = {}  -- the changes to `counts`
local last  -- the highest id of a planned row, or of any entry that the stream has had

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

local ops = {}  -- the operations; they are for the migration whose id the request names, or without an id for any
local loaded = {}  -- operations for which all rows must be planned
