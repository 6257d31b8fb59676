-- Remove registrations in lanes that neither the queue nor the ledger knows any more.
--
-- ARGV[ARGS]      stream  of the intents, '' where the queue is none of ours
-- ARGV[ARGS + 1]  group
-- ARGV[ARGS + 2]  start   lex position to go on from, '-' for the beginning
-- ARGV[ARGS + 3]  limit
--
-- Returns {removed, next start or ''}
local stream, group, start, limit = ARGV[ARGS], ARGV[ARGS + 1], ARGV[ARGS + 2], tonumber(ARGV[ARGS + 3])
local removed, last = 0, ''

local function is_pending(entry)
  local ms, n = string.match(entry, '^(%d+)-(%d+)$')
  if not ms or stream == '' then return false end
  local entry_id = string.format('%.0f-%.0f', tonumber(ms), tonumber(n))
  local found = redis.pcall('XPENDING', stream, group, entry_id, entry_id, 1)
  -- When the group cannot be asked, the entry stays.
  return found.err ~= nil or #found > 0
end

local members = redis.call('ZRANGEBYLEX', K.lanes, start, '+', 'LIMIT', 0, limit)
for _, member in ipairs(members) do
  local symbol, entry, id = string.match(member, '^(%Z*)%z(%Z*)%z(%Z*)$')
  local v = redis.call('HMGET', entry_key(id or ''), 'state', 'member')
  local held = v[1] and v[1] ~= 'settled' and v[1] ~= 'tombstone' and v[2] == member
  if not held and not is_pending(entry or '') then
    redis.call('ZREM', K.lanes, member)
    if symbol then advance(symbol) end
    removed = removed + 1
  elseif held and v[1] == 'parked' and lane_head(symbol) == member then
    redis.call('SADD', K.ready, symbol)
  end
  last = '(' .. member
end
return done({removed, #members == limit and last or ''})
