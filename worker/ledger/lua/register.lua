-- Make the route's state, or find it.
--
-- ARGV[ARGS]      fresh      an incarnation to use if there is none
-- ARGV[ARGS + 1]  known      the incarnation this worker has seen before, else ''
-- ARGV[ARGS + 2]  threshold  failures in a row that trip the guard
-- ARGV[ARGS + 3]  halted     '1' to start a route without state halted
-- ARGV[ARGS + 4]  broker
-- ARGV[ARGS + 5]  mode
--
-- Returns {incarnation, 'found' | 'made' | 'halted'}
local fresh, known, threshold, start_halted = ARGV[ARGS], ARGV[ARGS + 1], ARGV[ARGS + 2], ARGV[ARGS + 3]
local broker, mode = ARGV[ARGS + 4], ARGV[ARGS + 5]
local current = redis.call('HGET', K.state, 'incarnation')
redis.call('HSET', K.state, 'guard_threshold', threshold, 'broker', broker, 'mode', mode)
if current and (known == '' or current == known) then return {current, 'found'} end
if not current then redis.call('HSET', K.state, 'incarnation', fresh, 'made_at', now_ms) end
current = current or fresh
if known ~= '' then
  halt(worker, 'the state of this route was lost or replaced on the server: compare with the broker, then resume')
  return done({current, 'halted'})
end
if start_halted == '1' then
  halt(worker, 'a live route without a history starts halted: look, then resume')
  return done({current, 'halted'})
end
return done({current, 'made'})
