-- Decide what a CANCEL may do, and note it when a request is about to leave. The gate of cancels: no halt, no guard.
--
-- ARGV[ARGS]      id        the CANCEL
-- ARGV[ARGS + 1]  token     of its claim
-- ARGV[ARGS + 2]  attempt   the number of this launch, from 1
-- ARGV[ARGS + 3]  target    the intent to cancel
-- ARGV[ARGS + 4]  symbol    its lane, which launches nothing while the CANCEL is open
-- ARGV[ARGS + 5]  calls     as in launch.lua
-- ARGV[ARGS + 6]  window_us
--
-- Returns {'launched', left_ms, response, reference}  ask the broker to cancel the order of this response
--         {'never_sent'}       the target had not left; it never will, and is answered CANCELLED
--         {'unknown'}          nothing is known of the target; should it come, it is answered CANCELLED
--         {'done', response}   the target has ended without an order; the stored JSON
--         {'waiting'}          the target is being sent or in doubt, or another CANCEL is open: handed out again soon
--         {'later', ms}        the broker's call limit, or a server that has changed and is not cleared up: ask
--                              again then; no order goes before it
--         {'expired'}          the CANCEL itself is too old
--         {'stale'}            it is not yours: send nothing, write nothing
local id, token, attempt = ARGV[ARGS], ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])
local target, symbol = ARGV[ARGS + 3], ARGV[ARGS + 4]
local RETRY_MS = 250

local own = load(id)
local again = own.state == 'in_flight' and (attempt == tonumber(own.attempt) or attempt == tonumber(own.attempt) + 1)
if own.token ~= token or token == '' or not (own.state == 'claimed' or again) then return {'stale'} end
local not_after = tonumber(string.match(redis.call('HGET', entry_key(id), 'times'), '%d+$'))
if now_ms >= not_after then return {'expired'} end

local key = entry_key(target)
local v = redis.call('HMGET', key, 'state', 'response', 'reference')
local state, response, reference = v[1], v[2], v[3] or ''

-- Hold the target's lane, if no other CANCEL does so for this target.
local function hold()
  local holder = redis.call('HGET', K.cancelling, 'target:' .. target)
  if holder and holder ~= id then return false end
  if not holder then
    redis.call('HSET', K.cancelling, 'target:' .. target, id, 'lane:' .. id, symbol)
    redis.call('HINCRBY', K.cancelling, 'open:' .. symbol, 1)
  end
  return true
end

local function wait()
  if not again then
    redis.call('HSET', entry_key(id), 'state', 'parked', 'token', '')
    redis.call('ZADD', K.open, math.min(now_ms + RETRY_MS, not_after), id)
  end
  return {'waiting'}
end

-- The target may have been launched on a server that is gone.
local gates = redis.call('HMGET', K.state, 'unsure_since', 'suspect_until')
if gates[1] and state ~= 'settled' then return {'later', 200} end
if state == 'claimed' or state == 'parked' then
  local created = tonumber(string.match(redis.call('HGET', key, 'times'), '^%d+'))
  if created <= tonumber(gates[2] or -1) then
    if state == 'parked' then redis.call('ZADD', K.open, 'XX', now_ms, target) end
    return wait()
  end
end
if not state or state == 'tombstone' then
  redis.call('HSET', key, 'state', 'tombstone', 'cancel', id)
  redis.call('PEXPIRE', key, retention_ms)
  return {'unknown'}
end
if state == 'claimed' or state == 'parked' then
  redis.call('HSET', key, 'cancel', id)
  if state == 'parked' then redis.call('ZADD', K.open, 'XX', now_ms, target) end
  return {'never_sent'}
end
if state ~= 'settled' then
  if hold() then redis.call('HSET', key, 'waiting', id) end
  return wait()
end
local ok, answer = pcall(cjson.decode, response)
if not (ok and answer.accepted) then return {'done', response} end
if not hold() then return wait() end
local later = take_slot('cancel', tonumber(ARGV[ARGS + 5]), tonumber(ARGV[ARGS + 6]))
if later > 0 then return {'later', later} end
redis.call('HSET', entry_key(id), 'state', 'in_flight',
  'flight', string.format('%.0f:0:0:%.0f:%.0f', attempt, now_ms, now_ms + quiet_ms))
redis.call('ZADD', K.open, now_ms + lease_ms, id)
audit('launched', id, attempt, token)
return done({'launched', not_after - now_ms, response, reference})
