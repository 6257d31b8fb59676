-- Take the right to work a batch of intents, or learn for each why not.
--
-- For each intent, from ARGS on, nine arguments:
--   id  token (unguessable, of this delivery)  fingerprint  symbol ('' = no lane)  entry ('' = number it here)
--   created (ms)  not_after (ms)  target ('' = no CANCEL)  body
--
-- Returns for each {'granted'}                it is yours: launch or settle it, showing the token
--                  {'parked'}                 its lane is busy; the ledger holds its bytes and hands it on in turn
--                  {'known', state}           a replay: the ledger holds it open already
--                  {'settled', response}      a replay: it was answered before; the stored JSON
--                  {'conflict', fingerprint}  same id, other content; nothing was changed
local answers = {}
local GRANTED, PARKED = {'granted'}, {'parked'}

-- Take one's place in the lane. True: somebody is before it.
local function must_wait(symbol, member)
  local head = lane_head(symbol)
  if head == member then return false end
  -- Registered already when it was taken from the queue, so the head is before it.
  if redis.call('ZADD', K.lanes, 0, member) == 0 then return true end
  if head == nil then return false end
  if lane_head(symbol) ~= member then return true end
  -- It should have been there before the head, which may be on its way: one of a lane at a time.
  return redis.call('HGET', entry_key(member_id(head)), 'state') ~= 'parked'
end

local function enter(id, token, fingerprint, symbol, entry, created, not_after, target, body)
  local parked, member = false, ''
  if symbol ~= '' then
    if entry == '' then entry = string.format('k%020d', redis.call('HINCRBY', K.state, 'arrivals', 1)) end
    member = symbol .. '\0' .. entry .. '\0' .. id
    parked = must_wait(symbol, member)
  end
  redis.call('HSET', entry_key(id), 'state', parked and 'parked' or 'claimed', 'fingerprint', fingerprint,
    'token', parked and '' or token, 'member', member, 'times', created .. ':' .. not_after, 'body', body,
    'worker', worker)
  if target ~= '' then redis.call('HSET', entry_key(id), 'target', target) end
  open_until(parked and not_after or now_ms + lease_ms, id)
  audit('claimed', id, body)
  if parked then return PARKED end
  return GRANTED
end

local function claim(id, token, fingerprint, symbol, entry, ...)
  local known = redis.call('HMGET', entry_key(id), 'state', 'fingerprint', 'token', 'member', 'response')
  local state = known[1]
  if not state then return enter(id, token, fingerprint, symbol, entry, ...) end
  if state == 'tombstone' then
    -- All there is of an intent whose CANCEL came first. From here on it lives until it is settled.
    redis.call('PERSIST', entry_key(id))
    return enter(id, token, fingerprint, symbol, entry, ...)
  end
  if known[2] ~= fingerprint then return {'conflict', known[2]} end
  local member = symbol .. '\0' .. entry .. '\0' .. id
  if known[4] ~= member then leave_lane(member) end
  if state == 'settled' then return {'settled', known[5]} end
  -- The reply to this very call was lost, and it is made again.
  if state == 'claimed' and known[3] == token then return GRANTED end
  return {'known', state}
end

for i = ARGS, #ARGV, 9 do
  answers[#answers + 1] = claim(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6],
    ARGV[i + 7], ARGV[i + 8])
end
return done(answers)
