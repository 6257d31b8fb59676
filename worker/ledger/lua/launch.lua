-- Note that a batch of orders is about to leave. The last gate: what passes here may be sent, once.
-- Its lane needs no look: claim and grant let one intent of a lane out at a time.
--
-- ARGV[ARGS]      skew_ms       how far in the future an intent may be
-- ARGV[ARGS + 1]  calls         that the broker takes of the route in a window, 0 = no limit
-- ARGV[ARGS + 2]  window_us     of them
-- then for each   id  token  attempt (the number of this launch, from 1)
--
-- Returns for each {'launched', sequence, left_ms}  send it before left_ms have passed, or give it up
--                  {'later', ms}                    the rate limit, an open CANCEL of its lane, or a server that has
--                                                   changed and is not cleared up: ask again then
--                  {'tripped'} {'halted', reason} {'rollout'} {'expired'} {'future'} {'cancelled', id}
--                                                   it may not leave: settle it as denied
--                  {'stale'}                        it is not yours, or in doubt: send nothing, write nothing
local skew_ms, calls, window_us = tonumber(ARGV[ARGS]), tonumber(ARGV[ARGS + 1]), tonumber(ARGV[ARGS + 2])
local refused = 0
local UNSURE_MS = 200
local gates = read_gates()

-- A first launch needs the claim; another one needs the token that launched before and gave proof that nothing left.
-- The same number again is the same call, whose reply was lost.
local function is_own(state, stored_token, stored_flight, token, attempt)
  if stored_token ~= token or token == '' then return false end
  if state == 'claimed' then return true end
  if state ~= 'in_flight' then return false end
  local before = tonumber(string.match(stored_flight, '^%d+'))
  return attempt == before or attempt == before + 1
end

local function launch(id, token, attempt)
  local v = redis.call('HMGET', entry_key(id), 'state', 'token', 'flight', 'member', 'times', 'cancel', 'waiting')
  local state, member = v[1], v[4]
  if not is_own(state, v[2], v[3], token, attempt) then return {'stale'} end
  -- Before any answer: it may have been launched on the server that is gone.
  if gates.unsure then return {'later', UNSURE_MS} end
  local created, not_after = string.match(v[5], '^(%d+):(%d+)$')
  created, not_after = tonumber(created), tonumber(not_after)
  if state == 'claimed' and is_suspect(gates, id, created, skew_ms) then
    suspect(load(id), created, skew_ms)
    return {'stale'}
  end
  if v[6] then return {'cancelled', v[6]} end
  -- A CANCEL came while it was being sent, and it has not left after all.
  if v[7] and redis.call('HGET', K.cancelling, 'target:' .. id) == v[7] then return {'cancelled', v[7]} end
  if now_ms >= not_after then return {'expired'} end
  if created - now_ms > skew_ms then return {'future'} end
  if gates.halted then return {'halted', gates.halt_reason} end
  if not gates.admits then return {'tripped'} end
  if gates.differs then return {'rollout'} end
  if lane_is_held(gates, member) then return {'later', 100} end
  local later = take_slot('order', calls, window_us)
  if later > 0 then
    -- One behind the other, not all at the same slot.
    refused = refused + 1
    return {'later', later + math.floor((refused - 1) * window_us / calls / 1000)}
  end
  redis.call('HSET', entry_key(id), 'state', 'in_flight', 'flight', new_flight(gates, attempt))
  open_until(lease_until, id)
  audit('launched', id, attempt, token)
  return {'launched', gates.sequence, not_after - now_ms}
end

local answers = {}
for i = ARGS + 3, #ARGV, 3 do
  answers[#answers + 1] = launch(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]))
end
redis.call('HSET', K.state, 'sequence', gates.sequence)
return done(answers)
