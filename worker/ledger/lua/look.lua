-- Hand out the doubts whose next look-up is due, and put off the one after it.
--
-- ARGV[ARGS]      limit        how many at most
-- ARGV[ARGS + 1]  base_ms      the first pause between two look-ups; it doubles
-- ARGV[ARGS + 2]  ceiling_ms   up to this, and anew from the time on when a look-up can prove an absence
-- ARGV[ARGS + 3]  escalate_ms  a doubt older than this is announced as DOUBT_ESCALATED, once
--
-- Returns for each {id, fence, attempt, body, launched_at, quiet_at, since, now, target, response of target,
--                   reference of target, 1 if it is of a time of which this server has, or may have, forgotten launches}
local limit, base_ms, ceiling_ms = tonumber(ARGV[ARGS]), tonumber(ARGV[ARGS + 1]), tonumber(ARGV[ARGS + 2])
local escalate_ms = tonumber(ARGV[ARGS + 3])
local gates = redis.call('HMGET', K.state, 'unsure_since', 'suspect_until')
local forgotten_until = gates[1] and now_ms or tonumber(gates[2] or -1)
local due = {}

local function escalate(e)
  redis.call('HSET', entry_key(e.id), 'escalated', 1)
  local fields = about(e)
  fields.safety_code = 'FS042'
  fields.message = 'the broker has given no evidence for long: a named person should look and decide '
    .. '(worker doubt list, worker doubt resolve)'
  announce('DOUBT_ESCALATED', e.id .. ':' .. e.fence, fields)
end

local function next_look(id, quiet_at)
  local is_early = now_ms < quiet_at
  local looks = redis.call('HINCRBY', entry_key(id), is_early and 'looks' or 'late_looks', 1)
  local at = now_ms + math.min(base_ms * 2 ^ (looks - 1), ceiling_ms)
  return is_early and math.min(at, quiet_at + base_ms) or at
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', K.doubts, '-inf', now_ms, 'LIMIT', 0, limit)) do
  local e = load(id)
  if e.state == 'in_doubt' then
    local v = redis.call('HMGET', entry_key(id), 'since', 'escalated')
    local launched_at, quiet_at = string.match(e.flight, ':(%d+):(%d+)$')
    redis.call('ZADD', K.doubts, next_look(id, tonumber(quiet_at)), id)
    if not v[2] and now_ms - tonumber(v[1]) > escalate_ms then escalate(e) end
    local of_target = e.target and redis.call('HMGET', entry_key(e.target), 'response', 'reference') or {}
    due[#due + 1] = {id, e.fence, e.attempt, body_of(id), launched_at, quiet_at, v[1], now_ms, e.target or '',
      of_target[1] or '', of_target[2] or '', tonumber(launched_at) <= forgotten_until and 1 or 0}
  else
    redis.call('ZREM', K.doubts, id)
  end
end
return done(due)
