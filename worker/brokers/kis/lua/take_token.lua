-- Hand out the token of an app key, or let one caller ask the broker for the next one.
--
-- KEYS[1]  token        hash: sealed, digest, fresh_until_ms, valid_until_ms, fence, lease_until_ms, next_issue_ms
-- ARGV[1]  dead         digest of a token that is not taken any more, '' for none
-- ARGV[2]  lease_ms     what the one who asks has for it
-- ARGV[3]  interval_ms  from one issue to the next
--
-- Returns {'held', sealed, fresh_for_ms, valid_for_ms}  use it; below zero it is due, and somebody else may replace it
--         {'issue', fence}                               ask the broker, and bring what it gives with this number
--         {'busy', for_ms}                               somebody asks; the lease ends then
--         {'wait', for_ms}                               the last issue is too young
local dead, lease_ms, interval_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local token = redis.call('HMGET', KEYS[1],
  'sealed', 'digest', 'fresh_until_ms', 'valid_until_ms', 'lease_until_ms', 'next_issue_ms')
local sealed, digest = token[1], token[2]
local fresh_for, valid_for = (tonumber(token[3]) or 0) - now, (tonumber(token[4]) or 0) - now
local lease_for, wait_for = (tonumber(token[5]) or 0) - now, (tonumber(token[6]) or 0) - now

local usable = sealed and digest ~= dead and valid_for > 0
if usable and (fresh_for > 0 or lease_for > 0 or wait_for > 0) then
  return {'held', sealed, fresh_for, valid_for}
end
if lease_for > 0 then return {'busy', lease_for} end
if wait_for > 0 then return {'wait', wait_for} end

-- Noted before the broker is asked: whoever crashes while asking has used up the minute all the same.
redis.call('HSET', KEYS[1], 'lease_until_ms', now + lease_ms, 'next_issue_ms', now + interval_ms)
return {'issue', redis.call('HINCRBY', KEYS[1], 'fence', 1)}
