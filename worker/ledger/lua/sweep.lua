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

for _, id in ipairs(redis.call('ZRANGEBYSCORE', K.open, '-inf', now_ms, 'LIMIT', 0, 256)) do
  local e = load(id)
  if e.state == 'in_flight' then
    to_doubt(e, guard, 'its worker ' .. (e.worker or '?') .. ' went silent after the launch', 'FS042')
    doubts[#doubts + 1] = id
  elseif e.state == 'claimed' or e.state == 'parked' then
    if #granted < want then grant(id, body_of(id)) end
  else
    closed[#closed + 1] = id
  end
end
if guard.changed then guard_save(K.state, guard) end
grant_ready()
return done({granted, doubts})
