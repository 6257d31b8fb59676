-- Announce something that was seen from outside, once: an order of the broker's list that is not ours or should not
-- exist, or that no worker is alive.
--
-- ARGV[ARGS]      kind    'ORPHAN_ORDER' (halts the route) | 'FOREIGN_ORDER' | 'NO_LIVE_WORKER'
-- ARGV[ARGS + 1]  mark    names what was seen: broker number, and intent_id where it shows one; the last heartbeat
-- ARGV[ARGS + 2]  fields  of the event, as JSON
-- ARGV[ARGS + 3]  id      the intent it seems to belong to, '' for none
-- ARGV[ARGS + 4]  state   that intent's state as read before the list was, '' for none
--
-- Returns 1 announced, 0 known before, -1 the ledger has moved on: look again
local kind, mark, fields, id, state = ARGV[ARGS], ARGV[ARGS + 1], ARGV[ARGS + 2], ARGV[ARGS + 3], ARGV[ARGS + 4]
if id ~= '' and (redis.call('HGET', entry_key(id), 'state') or '') ~= state then return -1 end
-- Its launch was forgotten by the server: no orphan, but in doubt when its turn comes.
if kind == 'ORPHAN_ORDER' and id ~= '' and may_be_forgotten(id) then return -1 end
if redis.call('HSETNX', K.noted, mark, now_ms) == 0 then return 0 end
announce(kind, mark, cjson.decode(fields))
if kind == 'ORPHAN_ORDER' then halt(worker, 'orphan order ' .. mark) end
return done(1)
