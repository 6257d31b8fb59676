-- Renew the leases of what the caller works on.
--
-- From ARGS on, for each: id  token
--
-- Returns for each 1  still yours, for another lease
--                  0  not yours any more
local answers = {}
for i = ARGS, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local v = redis.call('HMGET', entry_key(id), 'state', 'token')
  local own = v[2] == token and (v[1] == 'claimed' or v[1] == 'in_flight')
  if own then redis.call('ZADD', K.open, 'XX', now_ms + lease_ms, id) end
  answers[#answers + 1] = own and 1 or 0
end
return answers
