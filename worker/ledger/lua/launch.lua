-- Note that a batch of orders is about to leave. The last gate: what passes here may be sent, once.
--
-- ARGV[ARGS]      quiet_ms      from here until the broker's list can prove an absence
-- ARGV[ARGS + 1]  interval_us   between two launches of the route, 0 = no limit
-- ARGV[ARGS + 2]  skew_ms       how far in the future an intent may be
-- then for each   id  token  attempt (the number of this launch, from 1)
--
-- Returns for each {'launched', sequence, left_ms}  send it before left_ms have passed, or give it up
--                  {'later', ms}                    the rate limit or an open CANCEL of its lane: ask again then
--                  {'parked'}                       not at the head of its lane; the ledger hands it on in turn
--                  {'tripped'} {'halted', reason} {'expired'} {'future'} {'cancelled', id}
--                                                   it may not leave: settle it as denied
--                  {'stale'}                        it is not yours: send nothing, write nothing
local quiet_ms, interval_us, skew_ms = tonumber(ARGV[ARGS]), tonumber(ARGV[ARGS + 1]), tonumber(ARGV[ARGS + 2])
local route_state = redis.call('HMGET', K.state, 'halted', 'halt_reason', 'rate_at')
local halted, halt_reason, rate_at = route_state[1] == '1', route_state[2] or '', tonumber(route_state[3] or 0)
local guard = guard_load(K.state)
local may_launch = guard.state == 'NORMAL' or guard.state == 'WARNING'
local FIELDS_HERE = {'state', 'token', 'attempt', 'symbol', 'entry', 'created', 'not_after', 'cancel', 'waiting'}

-- A first launch needs the claim; another one needs the token that launched before and gave proof that nothing left.
-- The same number again is the same call, whose reply was lost.
local function is_own(state, stored_token, stored_attempt, token, attempt)
  if stored_token ~= token or token == '' then return false end
  if state == 'claimed' then return true end
  return state == 'in_flight' and (attempt == stored_attempt or attempt == stored_attempt + 1)
end

local function launch(id, token, attempt)
  local v = redis.call('HMGET', entry_key(id), unpack(FIELDS_HERE))
  local state, symbol, entry, created, not_after = v[1], v[4], v[5], tonumber(v[6]), tonumber(v[7])
  if not is_own(state, v[2], tonumber(v[3]), token, attempt) then return {'stale'} end
  if v[8] then return {'cancelled', v[8]} end
  -- A CANCEL came while it was being sent, and it has not left after all.
  if v[9] and redis.call('HGET', K.cancelling, 'target:' .. id) == v[9] then return {'cancelled', v[9]} end
  if now_ms >= not_after then return {'expired'} end
  if created - now_ms > skew_ms then return {'future'} end
  if halted then return {'halted', halt_reason} end
  if not may_launch then return {'tripped'} end
  if symbol ~= '' then
    local again = state == 'in_flight'
    if not again and lane_head(symbol) ~= symbol .. '\0' .. entry .. '\0' .. id then
      park(id, not_after)
      advance(symbol)
      return {'parked'}
    end
    if redis.call('HEXISTS', K.cancelling, 'open:' .. symbol) == 1 then return {'later', 100} end
  end
  if interval_us > 0 then
    if rate_at > now_us then return {'later', math.ceil((rate_at - now_us) / 1000)} end
    rate_at = math.max(rate_at, now_us) + interval_us
  end
  local sequence = redis.call('HINCRBY', K.state, 'sequence', 1)
  redis.call('HSET', entry_key(id), 'state', 'in_flight', 'attempt', attempt, 'sequence', sequence,
    'generation', guard.generation, 'launched_at', now_ms, 'quiet_at', now_ms + quiet_ms)
  redis.call('ZADD', K.open, now_ms + lease_ms, id)
  audit('launched', id, attempt)
  return {'launched', sequence, not_after - now_ms}
end

local answers = {}
for i = ARGS + 3, #ARGV, 3 do
  answers[#answers + 1] = launch(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]))
end
if interval_us > 0 then redis.call('HSET', K.state, 'rate_at', string.format('%.0f', rate_at)) end
return answers
