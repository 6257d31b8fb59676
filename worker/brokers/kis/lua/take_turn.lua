-- Take the next free turn of those who read lists of an app key.
--
-- KEYS[1]  token        hash, see take_token; besides, next_turn_ms
-- ARGV[1]  interval_ms  from one turn to the next
--
-- Returns in how many ms the turn begins
local interval_ms = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local turn = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'next_turn_ms') or 0))
redis.call('HSET', KEYS[1], 'next_turn_ms', turn + interval_ms)
return turn - now
