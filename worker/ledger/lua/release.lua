-- Give back what the caller had claimed and will not work on, so that another worker takes it at its next sweep.
--
-- From ARGS on, for each: id  token
--
-- Returns for each 1  given back
--                  0  not the caller's, or launched already
local answers = {}
for i = ARGS, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local v = redis.call('HMGET', entry_key(id), 'state', 'token')
  local own = v[1] == 'claimed' and v[2] == token
  if own then park(id, now_ms) end
  answers[#answers + 1] = own and 1 or 0
end
return done(answers)
