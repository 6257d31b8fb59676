-- Take entries of one stream for one consumer: first what a silent consumer left, then what nobody has seen.
-- Taking an entry and registering its lane is this one step, so lanes know entries in stream order.
--
-- KEYS[1] stream           stream, the queue
-- KEYS[2] lanes            zset, SYMBOL NUL ENTRY NUL ID; the stream's own key when lanes are off
-- KEYS[3] dead             stream, where oversized entries go; the stream's own key when they are to be taken
-- ARGV[1] group            consumer group; made at the stream's beginning when it is missing
-- ARGV[2] consumer         who takes
-- ARGV[3] count            take at most so many, 1 to 1000
-- ARGV[4] min_idle_ms      take over what was silent for so long; -1 = do not look this time
-- ARGV[5] cursor           where the last look for silent entries ended; 0-0 at first
-- ARGV[6] entry_bytes_max  an entry whose values, and names but 'body', are longer together is oversized
-- ARGV[7] lanes_max        take nothing new while so many entries are registered
--
-- Returns {'taken', cursor, silent, new}  silent = {{id, fields, times handed over}, ..}, new = {{id, fields}, ..}
--         {'empty', cursor, last}         nothing came after `last`, the id that the group read last
--         {'full', cursor, silent}        the lanes are full: nothing new until some are done
local stream, lanes, dead = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local min_idle_ms, cursor = tonumber(ARGV[4]), ARGV[5]
local entry_bytes_max, lanes_max = tonumber(ARGV[6]), tonumber(ARGV[7])

-- Redis has lost the group (a flush, a fail-over). 7.0, 6.2 and fakeredis each say it in their own words.
local function without_group(fault)
  local message = tostring(fault)
  return message:find('NOGROUP', 1, true) or message:find('requires the key to exist', 1, true)
end

local function call(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if without_group(reply.err) then redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM') end
  return redis.call(...)
end

-- True when the entry went to the dead-letter stream, and so is nobody's to work.
local function bury_oversized(id, fields)
  if dead == stream then return false end
  local length, body = 0, nil
  for i = 1, #fields, 2 do
    length = length + #fields[i + 1]
    if fields[i] == 'body' then body = body or fields[i + 1] else length = length + #fields[i] end
  end
  if length <= entry_bytes_max then return false end
  body = body or table.concat(fields, ' ')
  redis.call('XADD', dead, '*',
    'body', body:sub(1, 4096), 'reason', 'oversize',
    'error', 'the entry has length ' .. length .. ', above the limit of ' .. entry_bytes_max .. ' bytes',
    'entry_id', id, 'length', length, 'digest', redis.sha1hex and redis.sha1hex(body) or '')
  redis.call('XACK', stream, group, id)
  return true
end

-- Ids compare as text once both halves have 20 digits, as many as an id can have.
local function padded(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return ('0'):rep(20 - #ms) .. ms .. '-' .. ('0'):rep(20 - #seq) .. seq
end

local function is_symbol(text)
  return type(text) == 'string' and #text <= 32 and text:find('^[A-Z0-9][A-Z0-9._/%-]*$')
end

local function is_intent_id(text)
  return type(text) == 'string' and #text <= 64 and text:find('^[A-Za-z0-9._:%-]+$')
end

-- The entry's place in its lane; nil for what has none: a CANCEL, a NOOP, or no intent at all.
local function place(id, fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'body' then
      local read, intent = pcall(cjson.decode, fields[i + 1])
      if not read or type(intent) ~= 'table' then return nil end
      if intent.intent_type == 'CANCEL' or intent.intent_type == 'NOOP' then return nil end
      if not is_symbol(intent.symbol) or not is_intent_id(intent.intent_id) then return nil end
      return intent.symbol .. '\0' .. padded(id) .. '\0' .. intent.intent_id
    end
  end
  return nil
end

local places = {}
local function keep(entry, into)
  if bury_oversized(entry[1], entry[2]) then return end
  into[#into + 1] = entry
  local member = lanes ~= stream and place(entry[1], entry[2])
  if member then
    places[#places + 1] = 0
    places[#places + 1] = member
  end
end

-- Writes nothing, and fails when memory is out: else entries would be taken and then not registered.
if lanes ~= stream then redis.call('ZADD', lanes, 'XX', 0, '') end

local silent = {}
if min_idle_ms >= 0 then
  -- One XAUTOCLAIM looks at ten times its COUNT; a consumer with little room still gets through a long list.
  local looks = math.max(1, math.floor(100 / count))
  repeat
    local reply = call('XAUTOCLAIM', stream, group, consumer, min_idle_ms, cursor, 'COUNT', count - #silent, 'JUSTID')
    cursor = reply[1]
    for _, id in ipairs(reply[2]) do
      local entry = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
      if entry then
        entry[3] = redis.call('XPENDING', stream, group, id, id, 1)[1][4]
        keep(entry, silent)
      else
        -- Trimmed or deleted: nobody can work it any more. (7.0 has dropped it by itself, 6.2 has not.)
        redis.call('XACK', stream, group, id)
      end
    end
    looks = looks - 1
  until cursor == '0-0' or #silent >= count or looks == 0
end

local full = lanes ~= stream and redis.call('ZCARD', lanes) >= lanes_max
local new = {}
if not full and #silent < count then
  local reply = call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count - #silent, 'STREAMS', stream, '>')
  for _, entry in ipairs(reply and reply[1][2] or {}) do keep(entry, new) end
  if #silent == 0 and not reply then
    for _, found in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local about = {}
      for i = 1, #found, 2 do about[found[i]] = found[i + 1] end
      if about.name == group then return {'empty', cursor, about['last-delivered-id']} end
    end
  end
end

if #places > 0 then redis.call('ZADD', lanes, unpack(places)) end
if full then return {'full', cursor, silent} end
return {'taken', cursor, silent, new}
