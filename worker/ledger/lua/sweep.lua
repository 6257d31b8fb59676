-- Find what nobody works on any more, and what can be worked on now.
--
-- ARGV[ARGS]      want   how many intents the caller would take
-- ARGV[ARGS + 1]  token  for those
--
-- Returns {granted, doubts}: granted {id, body} now the caller's: leases that ended before a launch,
--                            parked intents that expired or were cancelled, waiting CANCELs, parked lane heads
--                            doubts: intent_ids whose lease ended after the launch; in doubt now, and announced
want, grant_token = tonumber(ARGV[ARGS]), ARGV[ARGS + 1]
local guard = guard_load(K.state)
local doubts = {}
local HEARTBEAT_LOST_MS = 2000

-- A worker that beats and yet lets a lease end hangs in the broker's call: the broker has failed it. One that died
-- says nothing about the broker, and a crash of ours must not trip the guard.
local function is_beating(name)
  local card = name and redis.call('HGET', K.workers, name)
  if not card then return false end
  local ok, fields = pcall(cjson.decode, card)
  return ok and now_ms - (tonumber(fields.beat) or 0) < HEARTBEAT_LOST_MS
end

-- Handed out without its turn, because it has expired: whatever the clock does next, it never trades.
local function close_its_time(e)
  if not e.member or e.member == '' or lane_head(member_symbol(e.member)) == e.member then return end
  local created = string.match(redis.call('HGET', entry_key(e.id), 'times'), '^%d+')
  redis.call('HSET', entry_key(e.id), 'times', created .. ':0')
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', K.open, '-inf', now_ms, 'LIMIT', 0, 256)) do
  local e = load(id)
  if e.state == 'in_flight' then
    to_doubt(e, guard, 'its worker ' .. (e.worker or '?') .. ' went silent after the launch', 'FS042',
      is_beating(e.worker))
    doubts[#doubts + 1] = id
  elseif e.state == 'claimed' or e.state == 'parked' then
    if #granted < want then
      if e.state == 'parked' then close_its_time(e) end
      grant(id, body_of(id))
    end
  else
    closed[#closed + 1] = id
  end
end
if guard.changed then guard_save(K.state, guard) end
grant_ready()
return done({granted, doubts})
