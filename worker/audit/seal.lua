-- Write the next seal of the audit trail, if all is still as the caller read it: a chain never forks. The route's state
-- remembers it too, so that who takes seals away has to change two places.
--
-- KEYS[1] seals       stream
-- KEYS[2] state       hash of the route, whose field `seal` has number, hash and last entry of the last seal
-- ARGV[1] remembered  that field as the caller knows it, '' where it is not there
-- ARGV[2] newest      id of the newest entry of the seals as the caller knows it, '' where there is none
-- ARGV[3] tip         what to remember now
-- ARGV[4..]           fields and values of the new seal
--
-- Returns {'sealed', id of its entry}, or {'changed'} when somebody else was faster: nothing was written, read again
local seals, state, remembered, newest, tip = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local FIRST = 4

if (redis.call('HGET', state, 'seal') or '') ~= remembered then return {'changed'} end
local last = redis.call('XREVRANGE', seals, '+', '-', 'COUNT', 1)[1]
if (last and last[1] or '') ~= newest then return {'changed'} end
local entry = redis.call('XADD', seals, '*', unpack(ARGV, FIRST))
redis.call('HSET', state, 'seal', tip)
return {'sealed', entry}
