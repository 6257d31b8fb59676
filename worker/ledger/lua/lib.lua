-- What every ledger script starts from: the route's keys, the call's context, and the words they share.
--
-- Put in front of each script by scripts.py, behind guard.lua. Local functions only: a global would break a server
-- for every later script.
--
-- KEYS[1..15]  state open doubts lanes ready cancelling responses failsafe audit dead noted orders workers slots owned
-- ARGV[1] prefix        of the route's keys; entries of the ledger are prefix .. 'intent:' .. intent_id, same slot
-- ARGV[2] route         its name
-- ARGV[3] worker        who calls
-- ARGV[4] incarnation   of the route's state as the caller knows it, '' to skip the check
-- ARGV[5] lease_ms      how long a claim holds
-- ARGV[6] retention_ms  how long a settled entry lives
-- ARGV[7] on_doubt      'wait': a doubt holds its lane; 'continue': it does not
-- ARGV[8] build         version and settings of a worker that sends with real money, '' of any other
-- ARGV[9] quiet_ms      from a launch until nothing of it can still arrive, and the broker's list shows it
--
-- Times are milliseconds of Redis's own clock.
local K = {
  state = KEYS[1], open = KEYS[2], doubts = KEYS[3], lanes = KEYS[4], ready = KEYS[5], cancelling = KEYS[6],
  responses = KEYS[7], failsafe = KEYS[8], audit = KEYS[9], dead = KEYS[10], noted = KEYS[11], orders = KEYS[12],
  workers = KEYS[13], slots = KEYS[14], owned = KEYS[15],
}
local prefix, route, worker, incarnation = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lease_ms, retention_ms, on_doubt, build = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
local quiet_ms = tonumber(ARGV[9])
local ARGS = 10 -- where a script's own arguments begin

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)
-- As text once: a number that is passed to a command is printed anew each time.
local lease_until = string.format('%.0f', now_ms + lease_ms)

if incarnation ~= '' and redis.call('HGET', K.state, 'incarnation') ~= incarnation then
  return redis.error_reply('STATELOST this route has been forgotten or made anew since the caller registered')
end

-- Days and times of the proleptic Gregorian calendar, since a script has no os.date.
local function iso(ms)
  local days = math.floor(ms / 86400000)
  local rest = ms - days * 86400000
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local seconds = math.floor(rest / 1000)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, math.floor(seconds / 3600),
    math.floor(seconds / 60) % 60, seconds % 60, rest % 1000)
end

local function entry_key(id)
  return prefix .. 'intent:' .. id
end

-- What a script has to write once for its whole batch. Every script ends with `return done(answer)`.
local trail, opened, closed = {}, {}, {}

-- `token`: of the claim under which it was done. Its end tells claims apart and proves nothing. `source`: the queue's
-- entry, where there is one.
local function audit(event, id, detail, token, source)
  trail[#trail + 1] = {event, id, tostring(detail), token and string.sub(token, -8) or '', source}
end

-- Somebody must look at the entry again at that time, at the latest.
local function open_until(ms, id)
  opened[#opened + 1] = ms
  opened[#opened + 1] = id
end

local function done(answer)
  if #closed > 0 then redis.call('ZREM', K.open, unpack(closed)) end
  if #opened > 0 then redis.call('ZADD', K.open, unpack(opened)) end
  if #trail > 0 then redis.call('XADD', K.audit, '*', 'worker', worker, 'records', cjson.encode(trail)) end
  return answer
end

-- Publish one failsafe event. `fields` gains what every event has; `mark` makes its id.
local function announce(kind, mark, fields)
  fields.schema_version, fields.type, fields.route, fields.timestamp = 1, kind, route, iso(now_ms)
  fields.event_id = kind .. ':' .. route .. ':' .. mark
  redis.call('XADD', K.failsafe, '*', 'type', kind, 'body', cjson.encode(fields))
  audit(kind, fields.intent_id or '', fields.message)
end

-- Publish an edge of the guard or the halt, which numbers it.
local function announce_edge(kind, fields)
  fields.epoch = redis.call('HINCRBY', K.state, 'epoch', 1)
  announce(kind, fields.epoch, fields)
end

local function announce_guard(edge, g, actor, reason)
  local words = {
    GUARD_TRIPPED = 'the guard has tripped: nothing is launched until a named person resets it',
    LOCKDOWN = 'the guard has tripped again before any success: a reset now needs --approve',
    GUARD_RESET = 'the guard was reset: launches are allowed again',
  }
  announce_edge(edge, {
    state = g.state, consecutive_failures = #g.failures, threshold = g.threshold, actor = actor, reason = reason,
    safety_code = edge ~= 'GUARD_RESET' and 'FS040' or nil, message = words[edge],
  })
end

local function halt(actor, reason)
  if redis.call('HGET', K.state, 'halted') == '1' then return false end
  redis.call('HSET', K.state, 'halted', '1', 'halt_actor', actor, 'halt_reason', reason, 'halted_at', now_ms)
  announce_edge('HALTED', {actor = actor, reason = reason, message = 'halted: nothing is launched until a resume'})
  return true
end

-- Lanes. A member is SYMBOL NUL ENTRY NUL ID with score 0, so the order of members is the order of the queue.

local function lane_head(symbol)
  return redis.call('ZRANGEBYLEX', K.lanes, '[' .. symbol .. '\0', '(' .. symbol .. '\1', 'LIMIT', 0, 1)[1]
end

local function member_symbol(member)
  return string.match(member, '^%Z*')
end

local function member_id(member)
  return string.match(member, '%Z*$')
end

-- Parked intents that this call hands to its caller, up to `want`, as {intent_id, body}.
local granted, want, grant_token = {}, 0, ''

local function grant(id, body)
  redis.call('HSET', entry_key(id), 'state', 'claimed', 'token', grant_token, 'worker', worker)
  open_until(lease_until, id)
  granted[#granted + 1] = {id, body}
  audit('handed', id, '', grant_token)
end

-- An intent has one place in its lane: that of its first entry. The queue may hold more of them, and a worker that died
-- may have had the first; then a later one was claimed before it.
local function move_up(id, from, to)
  redis.call('ZREM', K.lanes, from)
  redis.call('HSET', entry_key(id), 'member', to)
end

-- If the lane's head is parked, hand it to the caller, or note that somebody can take it.
local function advance(symbol)
  local head = lane_head(symbol)
  if not head then return end
  local id = member_id(head)
  local v = redis.call('HMGET', entry_key(id), 'state', 'body', 'member')
  -- Bytes of another lane may name its id without being it; they are on their way to the dead letters.
  if v[1] ~= 'parked' or member_symbol(v[3]) ~= symbol then return end
  if v[3] ~= head then move_up(id, v[3], head) end
  if #granted < want then grant(id, v[2]) else redis.call('SADD', K.ready, symbol) end
end

local function leave_lane(member)
  if member and member ~= '' and redis.call('ZREM', K.lanes, member) == 1 then advance(member_symbol(member)) end
end

-- Entries of the ledger. Their fields, besides the public state, fingerprint and response:
--   token    the proof of the claim; worker, who has it
--   member   the place in the lane, '' for none
--   times    created ':' not_after
--   flight   attempt ':' sequence ':' generation ':' launched_at ':' quiet_at, of the last launch
--   fence, since, looks, late_looks, escalated   of a doubt
--   cancel   the CANCEL that forbids it; waiting, the one that waits for its end; target, of a CANCEL itself
--   body     as it came; reference, what a cancel needs besides the broker's number
--   seen     when it was claimed first
-- and once settled, to find its story in the trail: steps, when it was claimed first, and how many ms later it was last
-- launched, was in doubt and was settled; cancels, the CANCELs of its order

local FIELDS = {'state', 'fingerprint', 'token', 'member', 'flight', 'waiting', 'target', 'response', 'fence', 'worker', 'seen', 'since'}

local function load(id)
  local values = redis.call('HMGET', entry_key(id), unpack(FIELDS))
  local e = {id = id}
  for i = 1, #FIELDS do e[FIELDS[i]] = values[i] or nil end
  e.attempt, e.sequence, e.generation = '0', nil, nil
  if e.flight and e.flight ~= '' then e.attempt, e.sequence, e.generation = string.match(e.flight, '^(%d+):(%d+):(%d+):') end
  return e
end

local function body_of(id)
  return redis.call('HGET', entry_key(id), 'body') or ''
end

local function park(id, not_after)
  redis.call('HSET', entry_key(id), 'state', 'parked', 'token', '')
  open_until(not_after, id)
end

-- Hand out lane heads that were noted earlier, as far as the caller wants them.
local function grant_ready()
  while #granted < want do
    local symbol = redis.call('SPOP', K.ready)
    if not symbol then return end
    advance(symbol)
  end
end

-- The fields of an event that tell which order it is about.
local function about(e)
  local ok, order = pcall(cjson.decode, body_of(e.id))
  local fields = {intent_id = e.id}
  if ok and type(order) == 'table' then
    local quantity = order.quantity
    if type(quantity) == 'number' then quantity = string.format('%.0f', quantity) end
    fields.symbol = order.symbol
    if type(order.side) == 'string' then fields.side = order.side end
    if type(quantity) == 'string' then fields.quantity = quantity end
  end
  return fields
end

-- An order that left and was never confirmed. Its lane waits, unless the route says otherwise; its fence moves on,
-- so that nothing read before counts; somebody will ask the broker.
-- `counts`: whether it is a failure in the guard's eyes.
local function to_doubt(e, g, reason, safety_code, counts)
  local fence = redis.call('HINCRBY', K.state, 'fence', 1)
  redis.call('HSET', entry_key(e.id), 'state', 'in_doubt', 'fence', fence, 'since', now_ms, 'looks', 0, 'late_looks', 0)
  closed[#closed + 1] = e.id
  redis.call('ZADD', K.doubts, now_ms, e.id)
  local fields = about(e)
  fields.safety_code, fields.reason = safety_code, reason
  fields.message = 'it may or may not be at the broker: ' .. reason
  announce('INTENT_IN_DOUBT', e.id .. ':' .. fence, fields)
  if on_doubt == 'continue' then leave_lane(e.member) end
  if e.target or not counts then return end
  local edge = guard_failed(g, tonumber(e.sequence), tonumber(e.generation))
  if edge then announce_guard(edge, g, worker, reason) end
end

-- The ledger was compared with the broker's list after the server had changed. If that holds orders that no entry
-- accounts for (`strays`), every intent of before may be one of them: it is in doubt instead of launched.
local function be_sure(strays)
  local since = redis.call('HGET', K.state, 'unsure_since')
  redis.call('HDEL', K.state, 'unsure_since', 'unsure_until', 'clearer', 'clearer_until')
  if strays then redis.call('HSET', K.state, 'suspect_until', since) end
end

-- Whether the launch of this very intent may be one that the server has forgotten.
local function may_be_forgotten(id)
  return redis.call('HEXISTS', K.state, 'unsure_since') == 1 or redis.call('HEXISTS', K.noted, 'stray:' .. id) == 1
end

-- Whether an intent may be one whose launch was forgotten: by its age, or since the broker's list shows its id.
local function is_suspect(gates, id, created, skew_ms)
  if gates.suspect_until < 0 then return false end
  return created - skew_ms <= gates.suspect_until or redis.call('HEXISTS', K.noted, 'stray:' .. id) == 1
end

-- Put an entry in doubt whose launch, if there was one, was forgotten by the server. A person may have resumed the route
-- before all of that had arrived.
local function suspect(e, created, skew_ms)
  e.flight = string.format('1:0:0:%.0f:%.0f', math.min(created - skew_ms, now_ms), now_ms + quiet_ms)
  redis.call('HSET', entry_key(e.id), 'flight', e.flight)
  to_doubt(e, nil, 'its launch may be among those that the server has forgotten', 'FS042', false)
end

-- What stands in the way of all launches of the route, read once a call.
local function read_gates()
  local v = redis.call('HMGET', K.state, 'halted', 'halt_reason', 'sequence', 'unsure_since', 'suspect_until', 'build',
    'rollout_until')
  local guard = guard_load(K.state)
  return {
    halted = v[1] == '1', halt_reason = v[2] or '', sequence = tonumber(v[3] or 0),
    unsure = v[4] ~= false, suspect_until = tonumber(v[5] or -1), admits = guard_admits(guard), cancels_open = redis.call('EXISTS', K.cancelling) == 1,
    -- Live workers of the route that differ, unless a person has opened a window for it.
    differs = build ~= '' and v[6] ~= build and now_ms >= tonumber(v[7] or 0),
    -- What every launch of this call has in common, behind its attempt and sequence.
    tail = string.format(':%.0f:%.0f:%.0f', guard.generation, now_ms, now_ms + quiet_ms),
  }
end

-- Slots of the broker's call limit, which all calls of the route share: at most `calls` in any `window_us`, and at an
-- even pace, so that a CANCEL never finds them all gone. The list keeps the times of the last `calls`.
-- The pace is a little slower than the window allows: what a stall and the slots made up for it have pushed together
-- would come again in every window otherwise, and the gap before it too.
-- Who has to wait and goes before orders leaves a wish until it will have come again.
local WISHES = {cancel = 'wish_cancel', look = 'wish_look'}
-- How far a late slot may be made up for, in slots; how long a call may take to the broker more than the one before;
-- by how much a window's slots take longer than the window, besides.
local MAKE_UP, JITTER_US, SLACK_US, WISH_US = 1, 20000, 20000, 200000
-- After a rest calls take so much longer at first: all workers wake at once, and make their connections.
local REST_US, COLD_US = 10000000, 60000

local function must_yield(kind)
  local v = redis.call('HMGET', K.state, 'wish_cancel', 'wish_look')
  local cancel, look = tonumber(v[1] or 0) > now_us, tonumber(v[2] or 0) > now_us
  return (kind ~= 'cancel' and cancel) or (kind == 'order' and look)
end

-- How much later than another call one that leaves now may be with the broker.
local function lateness()
  local cold_until = tonumber(redis.call('HGET', K.state, 'cold_until') or 0)
  return now_us < cold_until and COLD_US or 0
end

-- Note that an order or cancel leaves, and whether it is the first after a rest.
local function wake(window_us)
  local sent_at = tonumber(redis.call('HGET', K.state, 'sent_at') or 0)
  if now_us - sent_at > REST_US then redis.call('HSET', K.state, 'cold_until', string.format('%.0f', now_us + 2 * window_us)) end
  redis.call('HSET', K.state, 'sent_at', string.format('%.0f', now_us))
end

-- Take one for a call of this kind: 'cancel', 'look' or 'order'. Returns 0, or in how many ms to ask again.
local function take_slot(kind, calls, window_us)
  if calls == 0 then return 0 end
  local late = lateness()
  local interval = (window_us + JITTER_US + SLACK_US + late) / calls
  local free_at = tonumber(redis.call('HGET', K.state, 'rate_at') or 0)
  local oldest = tonumber(redis.call('LINDEX', K.slots, calls - 1) or 0)
  local at = math.max(free_at, oldest + window_us + JITTER_US)
  local wish = WISHES[kind]
  if at > now_us then
    if wish then redis.call('HSET', K.state, wish, string.format('%.0f', at + WISH_US)) end
    return math.ceil((at - now_us) / 1000)
  end
  if must_yield(kind) then
    if wish then redis.call('HSET', K.state, wish, string.format('%.0f', now_us + interval + WISH_US)) end
    return math.ceil(interval / 1000)
  end
  if wish then redis.call('HDEL', K.state, wish) end
  if kind ~= 'look' then
    wake(window_us)
    late = lateness()
  end
  redis.call('HSET', K.state, 'rate_at', string.format('%.0f', math.max(free_at, now_us - MAKE_UP * interval) + interval))
  redis.call('LPUSH', K.slots, string.format('%.0f', now_us + late))
  redis.call('LTRIM', K.slots, 0, calls - 1)
  return 0
end

local function lane_is_held(gates, member)
  return gates.cancels_open and redis.call('HEXISTS', K.cancelling, 'open:' .. member_symbol(member)) == 1
end

-- The note of one launch: the next of the route's sequence.
local function new_flight(gates, attempt)
  gates.sequence = gates.sequence + 1
  return string.format('%d:%.0f', attempt, gates.sequence) .. gates.tail
end

local function steps(e)
  local from = tonumber(e.seen or now_ms)
  local function later(ms) return ms and string.format('%.0f', tonumber(ms) - from) or '' end
  local launched = e.flight and string.match(e.flight, '^%d+:%d+:%d+:(%d+):')
  return string.format('%.0f:%s:%s:%s', from, later(launched), later(e.since), later(now_ms))
end

-- A settled order keeps the names of its CANCELs.
local function note_cancel(e)
  local key = entry_key(e.target)
  local v = redis.call('HMGET', key, 'state', 'cancels')
  if v[1] == 'settled' then redis.call('HSET', key, 'cancels', (v[2] and v[2] .. ' ' or '') .. e.id) end
end

-- Close an entry and publish its one answer, together.
local function finish(e, response, reference)
  local key = entry_key(e.id)
  -- The answer to a CANCEL names an order that was answered before.
  if e.target then
    redis.call('XADD', K.responses, '*', 'intent_id', e.id, 'body', response, 'target', e.target)
  else
    redis.call('XADD', K.responses, '*', 'intent_id', e.id, 'body', response)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, 'state', 'settled', 'fingerprint', e.fingerprint, 'response', response,
    'steps', steps(e))
  if reference ~= '' then redis.call('HSET', key, 'reference', reference) end
  redis.call('PEXPIRE', key, retention_ms)
  closed[#closed + 1] = e.id
  if e.state == 'in_doubt' then redis.call('ZREM', K.doubts, e.id) end
  leave_lane(e.member)
  if e.target then note_cancel(e) end
  if e.waiting then redis.call('ZADD', K.open, 'XX', now_ms, e.waiting) end
  if e.target and redis.call('HGET', K.cancelling, 'target:' .. e.target) == e.id then
    local lane = redis.call('HGET', K.cancelling, 'lane:' .. e.id)
    redis.call('HDEL', K.cancelling, 'target:' .. e.target, 'lane:' .. e.id)
    if redis.call('HINCRBY', K.cancelling, 'open:' .. lane, -1) <= 0 then
      redis.call('HDEL', K.cancelling, 'open:' .. lane)
      advance(lane)
    end
  end
end

-- At a broker that knows no ids of ours, remember in K.owned whose an order is, and which launched orders became none:
--   number:NUMBER  the owner of the broker's order of that number
--   unplaced:KEY   owners that a verdict says were not placed, newest first, a line each, at most UNPLACED_MAX; a key is
--                  symbol, side, quantity and price
--   refused:KEY    the newest owner whose order was refused or never left
-- An owner is SINCE:LAUNCHED:ID, since when that is known and when it was launched. `key` is '' where rows carry our ids.
local UNPLACED_MAX = 16
local function own(e, key, outcome, response)
  if key == '' or e.target or e.attempt == '0' then return end
  local launched_at = string.match(e.flight, '^%d+:%d+:%d+:(%d+):')
  local owner = string.format('%.0f', now_ms) .. ':' .. launched_at .. ':' .. e.id
  if outcome == 'ACCEPTED' then
    redis.call('HSET', K.owned, 'number:' .. cjson.decode(response).broker_order_id, owner)
  elseif outcome == 'NOT_PLACED' then
    local owners = { owner }
    for older in string.gmatch(redis.call('HGET', K.owned, 'unplaced:' .. key) or '', '[^\n]+') do
      if #owners < UNPLACED_MAX then owners[#owners + 1] = older end
    end
    redis.call('HSET', K.owned, 'unplaced:' .. key, table.concat(owners, '\n'))
  else
    redis.call('HSET', K.owned, 'refused:' .. key, owner)
  end
end

-- An order turned up that our answer says does not exist. Stop the route, once for each order.
local function orphan(e, response)
  local ok, answer = pcall(cjson.decode, response)
  local number = ok and answer.broker_order_id or '?'
  if redis.call('HSETNX', K.noted, e.id .. ':' .. number, now_ms) == 0 then return end
  announce('ORPHAN_ORDER', e.id .. ':' .. number, {
    intent_id = e.id, broker_order_id = number, broker = ok and answer.broker or nil, safety_code = 'FS040',
    message = 'the broker holds an order for an intent that was answered otherwise; the route is halted',
  })
  halt(worker, 'orphan order ' .. number .. ' for intent ' .. e.id)
end
