-- After the server changed: whose turn it is to compare the broker's list with the ledger, and the end of it.
--
-- ARGV[ARGS]      verb    'look' | 'end'
-- ARGV[ARGS + 1]  since   for 'end': as read by 'look'
-- ARGV[ARGS + 2]  strays  for 'end': how many orders in the broker's list no entry accounts for
-- then for 'end' the intent_id of each, where the broker's rows show them
--
-- Returns {'unsure', since, left_ms}  it is the caller's turn: read the list once left_ms have passed
--         {'not_yours'}               nothing to clear up, or another worker does it
--         {'ended'}                   launches go on
--         {'stale'}                   the server has changed once more; nothing was written
local TURN_MS = 10000
local verb = ARGV[ARGS]
local v = redis.call('HMGET', K.state, 'unsure_since', 'unsure_until', 'clearer', 'clearer_until')
local since = v[1]
if verb == 'look' then
  local is_taken = v[3] and v[3] ~= worker and tonumber(v[4]) > now_ms
  if not since or is_taken then return {'not_yours'} end
  redis.call('HSET', K.state, 'clearer', worker, 'clearer_until', now_ms + TURN_MS)
  return {'unsure', tonumber(since), math.max(0, tonumber(v[2]) - now_ms)}
end
if not since or since ~= ARGV[ARGS + 1] then return {'stale'} end
local strays, known = tonumber(ARGV[ARGS + 2]), #ARGV - ARGS - 2
be_sure(strays > 0)
for i = ARGS + 3, #ARGV do redis.call('HSET', K.noted, 'stray:' .. ARGV[i], now_ms) end
-- Whose they are nobody can tell: who asks for the same order once more would get it twice.
if strays > known then
  halt(worker, 'the server has forgotten launches: ' .. strays .. ' orders at the broker belong to no intent that it knows')
end
audit('sure', '', ARGV[ARGS + 2] .. ' strays')
return done({'ended'})
