-- Close a batch of intents: each with its answer, or as a doubt. Then hand the lanes on.
--
-- ARGV[ARGS]      want    how many parked lane heads the caller would take
-- ARGV[ARGS + 1]  token   for those
-- then for each   id  token  attempt  how  payload  reference  key  wire
--   how: verdict ('answer' | 'doubt') ':' outcome ':' effect ('success' | 'failure' | 'none' | 'bug')
--   'answer': outcome of the response, payload its JSON, reference what a cancel will need ('' for none),
--             key the order's key where the broker's rows carry no ids of ours ('' elsewhere)
--             wire what the adapter tells of the call for the trail ('' for nothing)
--   'doubt':  outcome is the safety code, payload the reason; effect 'bug' marks a fault of the adapter itself
--
-- Returns {answers, granted}: for each 'settled'   closed, and its response published
--                                      'in_doubt'  noted as a doubt and announced
--                                      'already'   this very call was made before
--                                      'stale'     the entry is another's now; nothing was written but, if the
--                                                  broker holds the order, ORPHAN_ORDER and a halt
--                             granted: {id, body} of lane heads that are now the caller's
want, grant_token = tonumber(ARGV[ARGS]), ARGV[ARGS + 1]
local guard = guard_load(K.state)

local function count(e, effect, reason)
  local edge
  if effect == 'success' then
    edge = guard_succeeded(guard, tonumber(e.sequence), tonumber(e.generation))
  elseif effect == 'failure' then
    edge = guard_failed(guard, tonumber(e.sequence), tonumber(e.generation))
  end
  if edge then announce_guard(edge, guard, worker, reason) end
end

-- A late proof of the very order that the ledger names changes nothing; of any other, it is an orphan.
local function stale(e, outcome, payload)
  if outcome ~= 'ACCEPTED' then return 'stale' end
  local number = cjson.decode(payload).broker_order_id
  if e.response and cjson.decode(e.response).broker_order_id == number then return 'already' end
  if not e.response and may_be_forgotten(e.id) then
    -- Should it be asked for again, then it is in doubt until this order is found.
    redis.call('HSET', K.noted, 'stray:' .. e.id, now_ms)
    redis.call('HSETNX', K.state, 'suspect_until', 0)
    return 'stale'
  end
  orphan(e, payload)
  return 'stale'
end

local function doubt(e, safety_code, effect, reason)
  if e.state == 'in_doubt' then return 'in_doubt' end
  if e.state ~= 'in_flight' then return 'stale' end
  to_doubt(e, guard, reason, safety_code, true)
  if effect == 'bug' then
    local fields = about(e)
    fields.reason, fields.safety_code = reason, safety_code
    fields.message = 'the adapter itself failed after the order was launched: ' .. reason
    announce('ADAPTER_FAULT', e.id .. ':' .. e.attempt, fields)
  end
  return 'in_doubt'
end

local function answer(e, outcome, effect, payload, reference, key, token)
  local evidence = outcome == 'ACCEPTED' or outcome == 'REJECTED'
  if e.state == 'in_doubt' then
    if not evidence then return 'stale' end
    local fields = about(e)
    fields.message, fields.reason = 'the answer came after all: ' .. outcome, outcome
    announce('DOUBT_RESOLVED', e.id .. ':' .. e.fence, fields)
  elseif e.state == 'in_flight' then
    count(e, effect, outcome)
  elseif e.state ~= 'claimed' then
    return stale(e, outcome, payload)
  end
  own(e, key, outcome, payload)
  finish(e, payload, reference)
  -- The token as shown, so that the trail tells whose hand it was.
  audit('settled', e.id, outcome, token)
  return 'settled'
end

-- The reply to its last launch was lost, and then a gate was closed: its holder never heard of that launch, so nothing
-- left on it.
local function is_unheard(e, attempt, verdict, outcome)
  return verdict == 'answer' and outcome ~= 'ACCEPTED' and outcome ~= 'REJECTED' and e.state == 'in_flight'
    and tonumber(e.attempt) == tonumber(attempt) + 1
end

-- Its launch was forgotten by a server that failed over, and its holder knows the end of it all the same.
local function is_forgotten(e, attempt)
  return e.state == 'claimed' and e.attempt == '0' and attempt ~= '0'
end

local function remember(e, attempt)
  e.sequence, e.generation, e.attempt, e.state = redis.call('HINCRBY', K.state, 'sequence', 1), guard.generation, attempt, 'in_flight'
  local flight = string.format('%s:%.0f:%.0f:%.0f:%.0f', attempt, e.sequence, e.generation, now_ms - lease_ms, now_ms + quiet_ms)
  redis.call('HSET', entry_key(e.id), 'state', 'in_flight', 'flight', flight)
end

local ways = {}
local function way(how)
  if not ways[how] then ways[how] = {string.match(how, '^(%a+):([%w_]+):(%a+)$')} end
  return unpack(ways[how])
end

local function settle(id, token, attempt, how, payload, reference, key, wire)
  local verdict, outcome, effect = way(how)
  local e = load(id)
  if e.state == 'settled' and e.response == payload then return 'already' end
  if wire ~= '' and not (verdict == 'doubt' and e.state == 'in_doubt') then audit('wire', id, wire, token) end
  if e.token == token and is_forgotten(e, attempt) then remember(e, attempt) end
  local is_own = e.token == token and (e.attempt == attempt or is_unheard(e, attempt, verdict, outcome))
  if not is_own then return stale(e, outcome, payload) end
  if verdict == 'doubt' then return doubt(e, outcome, effect, payload) end
  return answer(e, outcome, effect, payload, reference, key, token)
end

local answers = {}
for i = ARGS + 2, #ARGV, 8 do
  answers[#answers + 1] = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6],
    ARGV[i + 7])
end
if guard.changed then guard_save(K.state, guard) end
grant_ready()
return done({answers, granted})
