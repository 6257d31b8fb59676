-- Keep a token that the broker issued, or note that it issued none.
--
-- KEYS[1]  token     hash, see take_token
-- ARGV[1]  fence     as take_token gave it
-- ARGV[2]  sealed    the token, encrypted; '' when the broker gave none
-- ARGV[3]  digest    names it without telling it
-- ARGV[4]  fresh_ms  until it is to be replaced
-- ARGV[5]  valid_ms  until its end
-- ARGV[6]  wait_ms   when the broker gave none: nobody asks again for so long
--
-- Returns 'kept'   done
--         'stale'  a later caller was let to ask meanwhile: nothing was done
local fence, sealed, digest = ARGV[1], ARGV[2], ARGV[3]
local fresh_ms, valid_ms, wait_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if redis.call('HGET', KEYS[1], 'fence') ~= fence then return 'stale' end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if sealed == '' then
  redis.call('HSET', KEYS[1], 'lease_until_ms', 0, 'next_issue_ms', now + wait_ms)
else
  redis.call('HSET', KEYS[1], 'sealed', sealed, 'digest', digest,
    'fresh_until_ms', now + fresh_ms, 'valid_until_ms', now + valid_ms, 'lease_until_ms', 0)
end
return 'kept'
