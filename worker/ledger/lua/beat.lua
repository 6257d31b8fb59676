-- A worker's heartbeat; and whether all that are alive are of one build, which is what may send with real money.
--
-- ARGV[ARGS]      card          JSON: who and where it is, and its build; gains the time
-- ARGV[ARGS + 1]  fresh_ms      a worker heard of within so long is alive
-- ARGV[ARGS + 2]  forgotten_ms  one not heard of for so long is taken off the list
--
-- Returns {'agreed'}         all of one build
--         {'differ', which}  they are not: nothing live is launched until they are, or a window is open
local card, fresh_ms, forgotten_ms = cjson.decode(ARGV[ARGS]), tonumber(ARGV[ARGS + 1]), tonumber(ARGV[ARGS + 2])
card.beat = now_ms
redis.call('HSET', K.state, 'alive_at', string.format('%.0f', now_ms))
redis.call('HSET', K.workers, worker, cjson.encode(card))

-- What a row says, or nil if no worker of ours has written it so: then a worker of another kind may have.
local function read(row)
  local ok, other = pcall(cjson.decode, row)
  if not ok or type(other) ~= 'table' or type(other.beat) ~= 'number' then return nil end
  if other.build ~= nil and type(other.build) ~= 'string' then return nil end
  -- Servers' clocks differ a little after a fail-over. One far ahead would be alive for ever.
  if not (other.beat <= now_ms + fresh_ms) then return nil end
  return other
end

local which, agreed = {}, true
local rows = redis.call('HGETALL', K.workers)
for i = 1, #rows, 2 do
  local other = read(rows[i + 1])
  if not other then
    -- It counts as a worker of another build that was heard of now. One that is alive writes its row again and again,
    -- and counts as long as it does; junk is silent from here on, and is forgotten as any worker.
    other = {beat = now_ms, build = 'unreadable'}
    redis.call('HSET', K.workers, rows[i], cjson.encode(other))
  end
  local age = now_ms - other.beat
  if age > forgotten_ms then redis.call('HDEL', K.workers, rows[i]) end
  if age <= fresh_ms then
    which[#which + 1] = rows[i] .. ' ' .. (other.build or '')
    agreed = agreed and (other.build or '') == (card.build or '')
  end
end
if build ~= '' then
  local now_is = agreed and build or ''
  local was = redis.call('HGET', K.state, 'build')
  if was ~= now_is then
    redis.call('HSET', K.state, 'build', now_is)
    audit(agreed and 'builds_agree' or 'builds_differ', '', table.concat(which, '; '))
  end
end
if agreed then return done({'agreed'}) end
return done({'differ', table.concat(which, '; ')})
