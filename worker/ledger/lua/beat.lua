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

-- A card that cannot be read, or has no time that can be, is no worker's: it is forgotten. One without a build is of another.
local function read_card(text)
  local ok, found = pcall(cjson.decode, text)
  local is_card = ok and type(found) == 'table' and type(found.beat) == 'number' and found.beat <= now_ms + fresh_ms
  if not is_card then return 0, '' end
  return found.beat, type(found.build) == 'string' and found.build or ''
end

local which, agreed = {}, true
local rows = redis.call('HGETALL', K.workers)
for i = 1, #rows, 2 do
  local beat, other = read_card(rows[i + 1])
  local age = now_ms - beat
  if age > forgotten_ms then redis.call('HDEL', K.workers, rows[i]) end
  if age <= fresh_ms then
    which[#which + 1] = rows[i] .. ' ' .. other
    agreed = agreed and other == (card.build or '')
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
