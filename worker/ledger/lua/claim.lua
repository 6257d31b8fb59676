-- Take the right to work a batch of intents, or learn for each why not. What can leave at once is launched in the
-- same step, through the same gates as in launch.lua; what meets a closed gate is only granted.
--
-- ARGV[ARGS]      room      launch at most so many
-- ARGV[ARGS + 1]  skew_ms   as in launch.lua
-- then for each intent nine arguments:
--   id  token (unguessable, of this delivery)  fingerprint  symbol ('' = no lane)  entry ('' = number it here)
--   created (ms)  not_after (ms)  target ('' = no CANCEL)  body
--
-- Returns for each {'launched', sequence, left_ms}
--                                             it is yours and has been launched: send it before left_ms have passed
--                  {'granted'}                it is yours: launch or settle it, showing the token
--                  {'parked'}                 its lane is busy; the ledger holds its bytes and hands it on in turn
--                  {'known', state}           a replay: the ledger holds it open already
--                  {'settled', response}      a replay: it was answered before; the stored JSON
--                  {'conflict', fingerprint}  same id, other content; nothing was changed
local room, skew_ms = tonumber(ARGV[ARGS]), tonumber(ARGV[ARGS + 1])
local gates = read_gates()
if gates.halted or not gates.admits or gates.unsure or gates.differs then room = 0 end
local first_sequence = gates.sequence
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

-- The place that an entry gives its intent. Where an earlier entry of the same intent is the lane's head, that is it.
local function place_of(symbol, entry, id)
  local member, head = symbol .. '\0' .. entry .. '\0' .. id, lane_head(symbol)
  if not head or head == member or member_id(head) ~= id then return member end
  redis.call('ZREM', K.lanes, member)
  return head
end

local function is_timely(created, not_after)
  return now_ms < tonumber(not_after) and tonumber(created) - now_ms <= skew_ms
end

local function enter(may_leave, id, token, fingerprint, symbol, entry, created, not_after, target, body)
  local parked, member = false, ''
  local ms, number = string.match(entry, '^0*(%d+)%-0*(%d+)$')
  local source = ms and ms .. '-' .. number
  if symbol ~= '' then
    if entry == '' then entry = string.format('k%020d', redis.call('HINCRBY', K.state, 'arrivals', 1)) end
    member = place_of(symbol, entry, id)
    parked = must_wait(symbol, member)
  end
  local state, flight = parked and 'parked' or 'claimed', ''
  if may_leave and not parked and room > 0 and member ~= '' and is_timely(created, not_after)
    and not lane_is_held(gates, member) and not is_suspect(gates, id, tonumber(created), skew_ms) then
    state, flight, room = 'in_flight', new_flight(gates, 1), room - 1
  end
  redis.call('HSET', entry_key(id), 'state', state, 'fingerprint', fingerprint,
    'token', parked and '' or token, 'member', member, 'times', created .. ':' .. not_after, 'body', body,
    'worker', worker, 'flight', flight, 'seen', now_ms)
  if target ~= '' then redis.call('HSET', entry_key(id), 'target', target) end
  open_until(parked and not_after or lease_until, id)
  audit('claimed', id, body, not parked and token or '', source)
  if parked then return PARKED end
  if flight == '' then return GRANTED end
  audit('launched', id, 1, token)
  return {'launched', gates.sequence, not_after - now_ms}
end

-- Taken again, it was registered again: a replay has no place of its own, and a doubt only where doubts hold their lanes.
local function rejoin(state, id, place, member)
  local holds = place and place ~= '' and state ~= 'settled' and not (state == 'in_doubt' and on_doubt == 'continue')
  if holds and place == member then return end
  if not (holds and member < place and redis.call('ZSCORE', K.lanes, member)) then return leave_lane(member) end
  move_up(id, place, member)
  if lane_head(member_symbol(member)) == member then advance(member_symbol(member)) end
end

local function claim(id, token, fingerprint, symbol, entry, ...)
  local known = redis.call('HMGET', entry_key(id), 'state', 'fingerprint', 'token', 'member', 'response')
  local state = known[1]
  if not state then return enter(true, id, token, fingerprint, symbol, entry, ...) end
  if state == 'tombstone' then
    -- All there is of an intent whose CANCEL came first. From here on it lives until it is settled.
    redis.call('PERSIST', entry_key(id))
    return enter(false, id, token, fingerprint, symbol, entry, ...)
  end
  if known[2] ~= fingerprint then return {'conflict', known[2]} end
  rejoin(state, id, known[4], symbol .. '\0' .. entry .. '\0' .. id)
  if state == 'settled' then return {'settled', known[5]} end
  -- The reply to this very call was lost, and it is made again: nothing was sent on it.
  if known[3] == token and (state == 'claimed' or state == 'in_flight') then return GRANTED end
  return {'known', state}
end

for i = ARGS + 2, #ARGV, 9 do
  answers[#answers + 1] = claim(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6],
    ARGV[i + 7], ARGV[i + 8])
end
if gates.sequence > first_sequence then redis.call('HSET', K.state, 'sequence', gates.sequence) end
return done(answers)
