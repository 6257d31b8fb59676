-- An operator's word: halt, resume, reset the guard, or a window in which workers of two builds may send.
--
-- ARGV[ARGS]      verb    'halt' | 'resume' | 'reset' | 'approve' (a reset out of LOCKDOWN) | 'rollout' | 'rollout_over'
-- ARGV[ARGS + 1]  actor
-- ARGV[ARGS + 2]  reason
-- ARGV[ARGS + 3]  for_ms  how long the window stays open
--
-- Returns {'done', state}     carried out, and published once; the guard's state
--         {'already', state}  it was so before; nothing was published
--         {'refused', why}    not allowed as given; nothing changed
local verb, actor, reason = ARGV[ARGS], ARGV[ARGS + 1], ARGV[ARGS + 2]
local guard = guard_load(K.state)
if verb == 'halt' then
  return done({halt(actor, reason) and 'done' or 'already', guard.state})
end
if verb == 'resume' then
  local is_unsure = redis.call('HEXISTS', K.state, 'unsure_since') == 1
  if redis.call('HGET', K.state, 'halted') ~= '1' and not is_unsure then return {'already', guard.state} end
  -- A person has looked, but at what, nobody can prove: what may have been launched before stays in doubt.
  if is_unsure then be_sure(true) end
  redis.call('HSET', K.state, 'halted', '0')
  redis.call('HDEL', K.state, 'halt_actor', 'halt_reason', 'halted_at')
  announce_edge('RESUMED', {actor = actor, reason = reason, message = 'resumed: launches are allowed again'})
  return done({'done', guard.state})
end
if verb == 'rollout' or verb == 'rollout_over' then
  local until_ms = verb == 'rollout' and now_ms + tonumber(ARGV[ARGS + 3]) or 0
  redis.call('HSET', K.state, 'rollout_until', string.format('%.0f', until_ms))
  audit(verb, '', actor .. ': ' .. reason)
  return done({'done', guard.state})
end
local edge, why = guard_reset(guard, verb == 'approve')
if not edge then return {'refused', why} end
guard_save(K.state, guard)
announce_guard(edge, guard, actor, reason)
return done({'done', guard.state})
