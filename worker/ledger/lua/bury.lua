-- Put one unreadable or conflicting entry of the queue into the dead-letter stream, and answer it where that is allowed.
--
-- ARGV[ARGS]      body         the raw bytes
-- ARGV[ARGS + 1]  reason       'invalid' | 'conflict' | 'poison'
-- ARGV[ARGS + 2]  error        what is wrong, for people
-- ARGV[ARGS + 3]  entry_id     of the queue, '' where it has none
-- ARGV[ARGS + 4]  entry        the same as lanes spell it
-- ARGV[ARGS + 5]  intent_id    where one can be read, else ''
-- ARGV[ARGS + 6]  fingerprint  of the bytes, prefixed so that it is no intent's
-- ARGV[ARGS + 7]  payload      a DENIED INVALID_INTENT response as JSON, else ''
-- ARGV[ARGS + 8]  stream       it was taken from, and is acknowledged in here; '' where the queue is none of ours
-- ARGV[ARGS + 9]  group        that took it
--
-- Returns 'answered'  buried, and the id is used up
--         'buried'    buried; the id has an entry of its own, or none could be read
--         'already'   it was buried before, or its very bytes were answered before
--         'open'      the ledger holds this very entry open: nothing was done
local body, reason, fault, entry_id = ARGV[ARGS], ARGV[ARGS + 1], ARGV[ARGS + 2], ARGV[ARGS + 3]
local entry, id, fingerprint, payload = ARGV[ARGS + 4], ARGV[ARGS + 5], ARGV[ARGS + 6], ARGV[ARGS + 7]
local stream, group = ARGV[ARGS + 8], ARGV[ARGS + 9]

-- The same call was made before, or another delivery of the entry was buried: nothing is pending any more.
local function is_done()
  if stream == '' then return false end
  local found = redis.pcall('XPENDING', stream, group, entry_id, entry_id, 1)
  -- A queue on another server cannot be asked.
  return not found.err and #found == 0
end

local e = id ~= '' and load(id) or {}
local is_open = e.state and e.state ~= 'settled' and e.state ~= 'tombstone'
local is_same = entry ~= '' and e.member and string.find(e.member, '\0' .. entry .. '\0', 1, true)
-- Its place alone proves nothing: that may have become the place of another entry with the same id.
if is_open and is_same and reason ~= 'conflict' and body_of(id) == body then return 'open' end

-- The take registered what it could read of it in a lane, each time that it was taken.
local ok, order = pcall(cjson.decode, body)
if ok and type(order) == 'table' and type(order.symbol) == 'string' and type(order.intent_id) == 'string' then
  local member = order.symbol .. '\0' .. entry .. '\0' .. order.intent_id
  -- It may have become the place of another entry with the same id, which is at work.
  if not (is_open and e.member == member) then leave_lane(member) end
end
if e.fingerprint == fingerprint or is_done() then return 'already' end
if stream ~= '' then redis.call('XACK', stream, group, entry_id) end

redis.call('XADD', K.dead, '*', 'body', body, 'reason', reason, 'error', fault, 'entry_id', entry_id)
audit('dead_lettered', id, reason)
if reason == 'conflict' then
  announce('INTENT_CONFLICT', id .. ':' .. entry_id, {
    intent_id = id, reason = fault,
    message = 'the same intent_id came with other content: it was not traded, and the first outcome stands',
  })
end
if payload ~= '' and not is_open and e.state ~= 'settled' then
  e.id, e.fingerprint, e.state = id, fingerprint, nil
  finish(e, payload, '')
  audit('settled', id, 'DENIED')
  return done('answered')
end
return done('buried')
