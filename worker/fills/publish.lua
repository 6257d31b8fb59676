-- Write what was seen of some orders and publish what is new in it, if all is still as the caller read it.
--
-- KEYS[1] working       hash, the orders that are followed and how far the answers were read
-- KEYS[2] orders        stream, order events
-- ARGV[1] position      up to which answers were read, as the caller knows it; '' at first
-- ARGV[2] position_new  up to which they are read now; the same to leave it
-- ARGV[3..]             for each order: field  old  new  event
--   old: its value as the caller read it, '' for none; new: its value, '' to follow it no more
--   event: JSON to publish, '' for none
--
-- Returns 'written', or 'changed' when somebody else was faster: nothing was written, read again
local working, orders = KEYS[1], KEYS[2]
local position, position_new = ARGV[1], ARGV[2]
local FIRST = 3

if (redis.call('HGET', working, 'position') or '') ~= position then return 'changed' end
for i = FIRST, #ARGV, 4 do
  if (redis.call('HGET', working, ARGV[i]) or '') ~= ARGV[i + 1] then return 'changed' end
end

if position_new ~= position then redis.call('HSET', working, 'position', position_new) end
for i = FIRST, #ARGV, 4 do
  local field, new, event = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  if new == '' then redis.call('HDEL', working, field) else redis.call('HSET', working, field, new) end
  if event ~= '' then redis.call('XADD', orders, '*', 'body', event) end
end
return 'written'
