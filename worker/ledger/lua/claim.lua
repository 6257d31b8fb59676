-- Take the right to work a batch of intents, or learn for each why not.
--
-- For each intent, from ARGS on, nine arguments:
--   id  token (unguessable, of this delivery)  fingerprint  symbol ('' = no lane)  entry ('' = number it here)
--   created (ms)  not_after (ms)  target ('' = no CANCEL)  body
--
-- Returns for each {'granted', fence}         it is yours: launch or settle it, showing the token
--                  {'parked'}                 its lane is busy; the ledger holds its bytes and hands it on in turn
--                  {'known', state}           a replay: the ledger holds it open already
--                  {'settled', response}      a replay: it was answered before; the stored JSON
--                  {'conflict', fingerprint}  same id, other content; nothing was changed
local answers = {}

local function enter(id, token, fingerprint, symbol, entry, created, not_after, target, body)
  local parked = false
  if symbol ~= '' then
    if entry == '' then entry = string.format('k%020d', redis.call('HINCRBY', K.state, 'arrivals', 1)) end
    local member = symbol .. '\0' .. entry .. '\0' .. id
    redis.call('ZADD', K.lanes, 0, member)
    parked = lane_head(symbol) ~= member
  end
  local fence = redis.call('HINCRBY', K.state, 'fence', 1)
  redis.call('HSET', entry_key(id), 'state', parked and 'parked' or 'claimed', 'fingerprint', fingerprint,
    'token', parked and '' or token, 'fence', fence, 'attempt', 0, 'symbol', symbol, 'entry', entry,
    'created', created, 'not_after', not_after, 'body', body, 'worker', worker)
  if target ~= '' then redis.call('HSET', entry_key(id), 'target', target) end
  redis.call('PERSIST', entry_key(id))
  redis.call('ZADD', K.open, parked and not_after or now_ms + lease_ms, id)
  audit('claimed', id, body)
  if parked then return {'parked'} end
  return {'granted', fence}
end

local function claim(id, token, fingerprint, symbol, entry, ...)
  local known = redis.call('HMGET', entry_key(id), 'state', 'fingerprint', 'token', 'fence', 'entry', 'response')
  local state = known[1]
  -- A tombstone is all there is of an intent whose CANCEL came first.
  if not state or state == 'tombstone' then return enter(id, token, fingerprint, symbol, entry, ...) end
  if known[2] ~= fingerprint then return {'conflict', known[2]} end
  if known[5] ~= entry then leave_lane(symbol, entry, id) end
  if state == 'settled' then return {'settled', known[6]} end
  -- The reply to this very call was lost, and it is made again.
  if state == 'claimed' and known[3] == token then return {'granted', tonumber(known[4])} end
  return {'known', state}
end

for i = ARGS, #ARGV, 9 do
  answers[#answers + 1] = claim(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6],
    ARGV[i + 7], ARGV[i + 8])
end
return answers
