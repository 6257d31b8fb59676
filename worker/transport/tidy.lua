-- Forget consumers that hold nothing and have been silent for long. One that holds entries stays: Redis would
-- throw its pending entries away with it.
--
-- KEYS[1] stream       stream, the queue
-- ARGV[1] group        consumer group
-- ARGV[2] consumer     the caller, who stays
-- ARGV[3] min_idle_ms  how long silent
--
-- Returns {'forgot', count}
local stream = KEYS[1]
local group, consumer, min_idle_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local count = 0
local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
for _, found in ipairs(consumers.err and {} or consumers) do
  local about = {}
  for i = 1, #found, 2 do about[found[i]] = found[i + 1] end
  if about.pending == 0 and about.idle >= min_idle_ms and about.name ~= consumer then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, about.name)
    count = count + 1
  end
end
return {'forgot', count}
