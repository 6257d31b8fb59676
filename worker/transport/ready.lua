-- Count the entries that the group was not given yet, and skip them if asked to. What is pending stays pending.
--
-- KEYS[1] stream  stream, the queue
-- ARGV[1] group   consumer group
-- ARGV[2] action  'count' or 'skip'
--
-- Returns {'ready', count}
local stream = KEYS[1]
local group, action = ARGV[1], ARGV[2]

if redis.call('EXISTS', stream) == 0 then return {'ready', 0} end

local about
for _, found in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local fields = {}
  for i = 1, #found, 2 do fields[found[i]] = found[i + 1] end
  if fields.name == group then about = fields end
end

local count = about and about.lag
-- No group has read, Redis 6.2 knows no lag, and after an XDEL or a trim nobody does.
if not count then
  local from = about and '(' .. about['last-delivered-id'] or '-'
  count = 0
  repeat
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', 1000)
    count = count + #page
    if #page > 0 then from = '(' .. page[#page][1] end
  until #page < 1000
end

if action == 'skip' then
  if about then
    redis.call('XGROUP', 'SETID', stream, group, '$')
  else
    redis.call('XGROUP', 'CREATE', stream, group, '$')
  end
end
return {'ready', count}
