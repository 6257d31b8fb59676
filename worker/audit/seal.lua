-- Write the next seal of the audit trail, if the last one is still as the caller read it: a chain never forks.
--
-- KEYS[1] seals     stream
-- ARGV[1] previous  hash of the last seal as the caller knows it; that before all entries where there is none
-- ARGV[2] number    of the last seal as the caller knows it, 0 where there is none
-- ARGV[3..]         fields and values of the new one
--
-- Returns 'sealed', or 'changed' when somebody else was faster: nothing was written, read again
local seals, previous, number = KEYS[1], ARGV[1], ARGV[2]
local FIRST = 3

local last = redis.call('XREVRANGE', seals, '+', '-', 'COUNT', 1)[1]
local seen = {number = '0', hash = previous}
if last then
  for i = 1, #last[2], 2 do seen[last[2][i]] = last[2][i + 1] end
end
if seen.number ~= number or seen.hash ~= previous then return 'changed' end
redis.call('XADD', seals, '*', unpack(ARGV, FIRST))
return 'sealed'
