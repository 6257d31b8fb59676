-- Drop the entries that every group has been given and has acknowledged. Nothing pending, nothing unread.
--
-- KEYS[1] stream  stream, the queue
-- ARGV[1] group   of the workers
--
-- Returns {'trimmed', count}  so many entries were dropped
--         {'held'}            the workers have no group yet, or there is no stream: everything is unread
local stream, group = KEYS[1], ARGV[1]

-- Whether id `a` is older than id `b`. By text: the halves have more digits than a Lua number holds.
local function older(a, b)
  local a_ms, a_seq = a:match('^(%d+)-(%d+)$')
  local b_ms, b_seq = b:match('^(%d+)-(%d+)$')
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  if #a_seq ~= #b_seq then return #a_seq < #b_seq end
  return a_seq < b_seq
end

if redis.call('EXISTS', stream) == 0 then return {'held'} end

local oldest, has_group
for _, found in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local about = {}
  for i = 1, #found, 2 do about[found[i]] = found[i + 1] end
  has_group = has_group or about.name == group
  local needed = about['last-delivered-id']
  if about.pending > 0 then
    local smallest = redis.call('XPENDING', stream, about.name)[2]
    -- A group that an operator set back may have pending entries ahead of what it reads next.
    if older(smallest, needed) then needed = smallest end
  end
  if not oldest or older(needed, oldest) then oldest = needed end
end

-- Others may read along before any worker has looked at the queue.
if not has_group then return {'held'} end
return {'trimmed', redis.call('XTRIM', stream, 'MINID', '=', oldest)}
