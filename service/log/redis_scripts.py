"""Lua of the Redis Streams log: every change of state is one of these scripts, hence atomic.

Keys, all under ``sub60:log:`` (one server, no cluster):

==============================  ======================================================================
``stream:{topic}:{p}``          the records; entry id ``{offset}-1``; fields k, v, t [ms], b (see below), h
``topics``                      topic → number of partitions
``ends`` ``begins``             ``{topic}:{p}`` → next offset to append, oldest offset held
``bytes`` ``trimmed``           ``{topic}:{p}`` → bytes ever appended (the entry's ``b``), bytes dropped
``members:{group}:{topic}``     slot → ``incarnation until_ms``
``leases:{group}:{topic}``      partition → ``slot epoch until_ms``
``offsets:{name}:{topic}``      partition → next offset of a worker group or a named reader
``checkpoints:{group}:{topic}`` partition → packed checkpoint
==============================  ======================================================================

Time is the server's own, so members need no common clock.
"""

from typing import Final

PREFIX: Final = "sub60:log:"

_COMMON: Final = """
local prefix = 'sub60:log:'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function append(topic, p, key, value, headers)
  local name = topic .. ':' .. p
  local offset = redis.call('HINCRBY', prefix .. 'ends', name, 1) - 1
  local total = redis.call('HINCRBY', prefix .. 'bytes', name, #key + #value)
  local fields = {'k', key, 'v', value, 't', string.format('%.0f', now), 'b', string.format('%.0f', total)}
  if #headers > 0 then
    fields[#fields + 1] = 'h'
    fields[#fields + 1] = headers
  end
  redis.call('XADD', prefix .. 'stream:' .. name, string.format('%.0f-1', offset), unpack(fields))
end

local function append_all(first)
  for i = first, #ARGV, 5 do
    append(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  end
end

local function incarnation_of(members, slot)
  local row = redis.call('HGET', members, slot)
  if not row then return nil, 0 end
  local incarnation, till = string.match(row, '^(%S+) (%d+)$')
  return incarnation, tonumber(till)
end

local function lease_of(leases, p)
  local row = redis.call('HGET', leases, p)
  if not row then return nil, 0, 0 end
  local slot, epoch, till = string.match(row, '^(%d+) (%d+) (%d+)$')
  return tonumber(slot), tonumber(epoch), tonumber(till)
end

local function set_lease(leases, p, slot, epoch, till)
  redis.call('HSET', leases, p, string.format('%d %.0f %.0f', slot, epoch, till))
end
"""

_APPENDS: Final = "#!lua\n" + _COMMON
"""Refused as a whole, before it starts, when the server's memory is full."""
_MANAGES: Final = "#!lua flags=allow-oom\n" + _COMMON
"""Works when memory is full: else neither leases nor sinks could move on, nothing be trimmed, and it stay full."""

APPEND: Final = _APPENDS + "append_all(1)\n"
"""ARGV: topic, partition, key, value, headers, … : append without any condition."""

JOIN: Final = (
    _MANAGES
    + """
local members, leases = KEYS[1], KEYS[2]
local slot, incarnation, ttl, n = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('HSET', members, slot, string.format('%s %.0f', incarnation, now + ttl))
for p = 0, n - 1 do
  local owner, epoch = lease_of(leases, p)
  if owner == slot then set_lease(leases, p, slot, epoch + 1, 0) end
end
"""
)
"""KEYS members, leases; ARGV slot, incarnation, ttl_ms, partitions: take the slot and fence its former process."""

HEARTBEAT: Final = (
    _MANAGES
    + """
local members, leases = KEYS[1], KEYS[2]
local slot, incarnation, ttl, n = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if incarnation_of(members, slot) ~= incarnation then return {'taken'} end
redis.call('HSET', members, slot, string.format('%s %.0f', incarnation, now + ttl))

-- fair share: the lowest slots get one more where the division leaves a rest
local live, below = 0, 0
local all = redis.call('HKEYS', members)
for _, other in ipairs(all) do
  local _, till = incarnation_of(members, other)
  if till > now then
    live = live + 1
    if tonumber(other) < slot then below = below + 1 end
  elseif till + 3600000 < now then
    redis.call('HDEL', members, other)
  end
end
local share = math.floor(n / live)
if below < n % live then share = share + 1 end

-- renew what is held in this tenure; the client says so by its epochs
local held, mine, count = {}, {}, 0
for i = 5, #ARGV, 2 do held[tonumber(ARGV[i])] = tonumber(ARGV[i + 1]) end
for p = 0, n - 1 do
  local owner, epoch = lease_of(leases, p)
  if owner == slot and held[p] == epoch then
    set_lease(leases, p, slot, epoch, now + ttl)
    mine[p] = epoch
    count = count + 1
  end
end
-- then take free ones up to the share: first those this slot had before, then any
for round = 1, 2 do
  for p = 0, n - 1 do
    local owner, epoch, till = lease_of(leases, p)
    if count < share and not mine[p] and (owner == slot or till <= now) and (round == 2 or owner == slot) then
      set_lease(leases, p, slot, epoch + 1, now + ttl)
      mine[p] = epoch + 1
      count = count + 1
    end
  end
end
local reply = {'ok', tostring(share)}
for p, epoch in pairs(mine) do
  reply[#reply + 1] = tostring(p)
  reply[#reply + 1] = string.format('%.0f', epoch)
end
return reply
"""
)
"""KEYS members, leases; ARGV slot, incarnation, ttl_ms, partitions, then partition, epoch of each lease held.

Returns ``taken``, or ``ok``, the fair share of partitions, and partition, epoch of each lease held now.
"""

COMMIT: Final = (
    _APPENDS
    + """
local members, leases, offsets, checkpoints = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local slot, incarnation, p, epoch = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local offset, checkpoint = tonumber(ARGV[5]), ARGV[6]
if incarnation_of(members, slot) ~= incarnation then return 'taken' end
local owner, current = lease_of(leases, p)
if owner ~= slot or current ~= epoch then return 'fenced' end
local stored = tonumber(redis.call('HGET', offsets, p) or '0')
if offset < stored or (offset == stored and #ARGV > 6) then return 'past' end
append_all(7)
redis.call('HSET', offsets, p, ARGV[5])
redis.call('HSET', checkpoints, p, checkpoint)
return 'ok'
"""
)
"""KEYS members, leases, offsets, checkpoints; ARGV slot, incarnation, partition, epoch, offset, checkpoint, records."""

RETAKE: Final = (
    _MANAGES
    + """
local members, leases, checkpoints = KEYS[1], KEYS[2], KEYS[3]
local slot, incarnation, p, epoch = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
if incarnation_of(members, slot) ~= incarnation then return {'taken'} end
local owner, current, till = lease_of(leases, p)
local stored = redis.call('HGET', checkpoints, p) or ''
if owner ~= slot or current ~= epoch then return {'fenced', '0', stored} end
set_lease(leases, p, slot, epoch + 1, till)
return {'ok', string.format('%.0f', epoch + 1), stored}
"""
)
"""Raise the epoch of a lease of ours, so that a commit still on its way cannot happen any more; read the checkpoint."""

RELEASE: Final = (
    _MANAGES
    + """
local leases, slot = KEYS[1], tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  local owner, epoch = lease_of(leases, ARGV[i])
  if owner == slot and epoch == tonumber(ARGV[i + 1]) then set_lease(leases, ARGV[i], slot, epoch + 1, 0) end
end
"""
)
"""KEYS leases; ARGV slot, then partition, epoch, …: free these leases."""

LEAVE: Final = (
    _MANAGES
    + """
if incarnation_of(KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""
)
"""KEYS members; ARGV slot, incarnation."""

_OF_STREAM: Final = (
    _MANAGES
    + """
local name = ARGV[1]
local stream = prefix .. 'stream:' .. name
local function number(hash) return tonumber(redis.call('HGET', prefix .. hash, name) or '0') end
local function field_at(offset, field)
  local id = string.format('%.0f-1', offset)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  for i = 1, #entry[2], 2 do
    if entry[2][i] == field then return tonumber(entry[2][i + 1]) end
  end
end
"""
)
"""Begins scripts on the stream that ARGV[1] names, ``{topic}:{p}``: its numbers, and numbers of its entries."""

FIRST_AT: Final = (
    _OF_STREAM
    + """
local time = tonumber(ARGV[2])
local low, high = number('begins'), number('ends')
while low < high do
  local middle = math.floor((low + high) / 2)
  if field_at(middle, 't') < time then low = middle + 1 else high = middle end
end
return string.format('%.0f', low)
"""
)
"""ARGV name, time [ms]: offset of the first entry at or after it, else the end; about log2 of the entries are read."""

STORE_OFFSETS: Final = _MANAGES + "redis.call('HSET', KEYS[1], unpack(ARGV))\n"
"""KEYS offsets; ARGV partition, offset, …."""

TRIM: Final = (
    _OF_STREAM
    + """
local keep, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local begin, total, trimmed = number('begins'), number('bytes'), number('trimmed')
local function held_from(offset) return total - (offset == begin and trimmed or field_at(offset - 1, 'b')) end
-- fewest oldest entries (those below `low`) without which at most `keep` bytes are held
local low, high = begin, math.min(limit, number('ends'))
while low < high do
  local middle = math.floor((low + high) / 2)
  if held_from(middle) > keep then low = middle + 1 else high = middle end
end
if low <= begin then return '0' end
local dropped = field_at(low - 1, 'b')
redis.call('XTRIM', stream, 'MINID', string.format('%.0f-0', low))
redis.call('HSET', prefix .. 'begins', name, string.format('%.0f', low))
redis.call('HSET', prefix .. 'trimmed', name, string.format('%.0f', dropped))
return string.format('%.0f', dropped - trimmed)
"""
)
"""ARGV name, bytes to keep, first offset that must stay: drop the oldest entries; returns bytes dropped."""
