-- A migration that many machines share.  The theory is at the top of _redis.py.
--
-- KEYS     as the link names them, below; all of them, so that a cluster sees them, and in one slot.  What they cannot
--          name beforehand are buckets of the index and the rows of a cause, which begin alike and are in that slot, too
-- ARGV[1]  the request, a JSON object; `op` names one of the operations below.  The reply is one, too
--
-- The keys' names hold the version of this layout (LAYOUT in _redis_reader.py).  It changes when what is stored here
-- changes its meaning.  `layout` holds it under a name without a version, for older and newer releases to see; `first` is
-- the key of releases before that.  Each operation bears being carried out twice: the link repeats it when its reply was
-- lost.
--
-- While a slot moves to another node of a cluster key by key, a node refuses scripts that name a key it does not have
-- (TRYAGAIN).  `first` is not there, so both nodes refuse this one until the slot has moved, with all of its keys.
--
-- What frees memory comes first where it can: a store whose memory is full then allows the rest, too.
-- cjson.encode writes no more than 14 digits, so that times and entries' ids travel as strings; it writes an empty
-- table as {}, and cjson.decode reads null as a true value: both leave out what is absent.
local GROUP, RETURNED = 'workers', 'returned'
local PENDING, DONE, LOWERED, FAILED, REJECTED, SUPERSEDED = 1, 2, 3, 4, 5, 6  -- State, and 1; 0 is no row at all
local NAMES = { 'left', 'done', 'lowered', 'failed', 'rejected', 'superseded' }
local BUCKETS = 16384  -- hashes of the index: so small that the store keeps them packed
local MOST_CAUSES, MOST_WORKERS = 1000, 1000
local YEARS, WHOLE = 100000000000, 2 ^ 53

local request = cjson.decode(ARGV[1])
local about  -- a hash; what the migration is of
local first, layout
local rows  -- a stream with a group: each row that is sent, or was
local counts  -- a hash: rows by state, and entries that must be on the stream
local states  -- a bit field: four bits for each line
local moved  -- a sorted set: entries whose id is not of their line, which is the score
local replaced  -- a hash: by line the row that a row superseded, as "<line> <values>"
local claims  -- a hash: by line when a pending row was claimed first; "" when it was given back unsent
local problems  -- a hash: failed and rejected rows, as "<cause>\0<document>"; by line or foreign id
local causes  -- a set: what they have in common.  Of each, cause:... is a sorted set of them by line
local workers  -- a hash: by worker "<seen> <rows> <document>"
local series  -- a hash: how each worker's calls went over time
local recent  -- a hash: outcomes of the last minute, by time
local pace  -- a hash: rate and share as they were set, as "<version> <value>"
local notes  -- a hash of texts
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
local changes = {}  -- of `counts`
local last  -- the highest id of a row that was planned, or of an entry that the stream has had

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

local ops = {}  -- of the migration with the id that the request names; where it names none, of any
local loaded = {}  -- operations for which all rows must be planned
