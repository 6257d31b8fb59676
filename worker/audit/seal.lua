-- Write the next seal of the audit trail, if the last one is still as the caller read it: a chain never forks. The route
-- remembers it beside the chain: who takes seals away leaves a chain that ends before what is remembered.
--
-- KEYS[1] seals     stream
-- KEYS[2] state     of the route: its field 'sealed' is NUMBER:HASH:LAST, the last seal and the entry that it ends with
-- ARGV[1] previous  hash of the last seal as the caller knows it; that before all entries where there is none
-- ARGV[2] number    of the last seal as the caller knows it, 0 where there is none
-- ARGV[3] sealed    what to remember of the new one
-- ARGV[4..]         fields and values of the new one
--
-- Returns 'sealed'
--         'gone'     sealed, and the seal before it has been taken away
--         'changed'  somebody else was faster: nothing was written, read again
local seals, state, previous, number = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local FIRST = 4

local known = redis.call('HGET', state, 'sealed')
local last, kept = redis.call('XREVRANGE', seals, '+', '-', 'COUNT', 1)[1], {}
if last then
  for i = 1, #last[2], 2 do kept[last[2][i]] = last[2][i + 1] end
end
local seen = {number = kept.number or '0', hash = kept.hash or previous}
-- Without, it is a trail of before this was remembered.
if known then seen.number, seen.hash = string.match(known, '^(%d+):(%x+):') end
if seen.number ~= number or seen.hash ~= previous then return 'changed' end
redis.call('XADD', seals, '*', unpack(ARGV, FIRST))
redis.call('HSET', state, 'sealed', ARGV[3])
if known and kept.hash ~= seen.hash then return 'gone' end
return 'sealed'
