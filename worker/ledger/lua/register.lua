-- Make the route's state, or find it; and see whether this server may have forgotten what the last one acknowledged.
--
-- ARGV[ARGS]      fresh      an incarnation to use if there is none
-- ARGV[ARGS + 1]  known      the incarnation this worker has seen before, else ''
-- ARGV[ARGS + 2]  threshold  failures in a row that trip the guard
-- ARGV[ARGS + 3]  halted     '1' to start a route without state halted
-- ARGV[ARGS + 4]  broker
-- ARGV[ARGS + 5]  mode
-- ARGV[ARGS + 6]  server     this life of this server, '' where it does not tell
-- ARGV[ARGS + 7]  address    where it is
-- ARGV[ARGS + 8]  remembers  '1': a restart at this address has forgotten nothing
-- ARGV[ARGS + 9]  seen       the highest number of a launch that this worker has seen
--
-- Returns {incarnation, 'found' | 'made' | 'halted' | 'changed'}
local fresh, known, threshold, start_halted = ARGV[ARGS], ARGV[ARGS + 1], ARGV[ARGS + 2], ARGV[ARGS + 3]
local broker, mode, server, address = ARGV[ARGS + 4], ARGV[ARGS + 5], ARGV[ARGS + 6], ARGV[ARGS + 7]
local remembers, seen = ARGV[ARGS + 8] == '1', tonumber(ARGV[ARGS + 9])
local v = redis.call('HMGET', K.state, 'incarnation', 'server', 'address', 'sequence')
local current, last_server, last_address, sequence = v[1], v[2], v[3], tonumber(v[4] or 0)
redis.call('HSET', K.state, 'guard_threshold', threshold, 'broker', broker, 'mode', mode)
if server ~= '' then redis.call('HSET', K.state, 'server', server, 'address', address) end

local function what_changed()
  if sequence < seen then return 'it is older than what a worker has seen' end
  if server == '' or not last_server or server == last_server then return nil end
  if remembers and address == last_address then return nil end
  return 'another server answers, or one that was restarted and may have forgotten its last writes'
end

-- What was launched may have ended, and more may have been launched, on the server that is gone.
local function doubt_all(why)
  local guard = guard_load(K.state)
  redis.call('HSET', K.state, 'unsure_since', now_ms, 'unsure_until', now_ms + quiet_ms)
  redis.call('HDEL', K.state, 'clearer', 'clearer_until')
  for _, id in ipairs(redis.call('ZRANGE', K.open, 0, -1)) do
    local e = load(id)
    if e.state == 'in_flight' then to_doubt(e, guard, why, 'FS042', false) end
  end
  audit('unsure', '', why)
end

if current and (known == '' or current == known) then
  local why = what_changed()
  if not why then return done({current, 'found'}) end
  doubt_all('the state may have lost its last writes: ' .. why)
  return done({current, 'changed'})
end
if not current then redis.call('HSET', K.state, 'incarnation', fresh, 'made_at', now_ms) end
current = current or fresh
if known ~= '' then
  halt(worker, 'the state of this route was lost or replaced on the server: compare with the broker, then resume')
  doubt_all('the state of this route was lost or replaced')
  return done({current, 'halted'})
end
if start_halted == '1' then
  halt(worker, 'a live route without a history starts halted: look, then resume')
  return done({current, 'halted'})
end
return done({current, 'made'})
