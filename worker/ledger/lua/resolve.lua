-- End a doubt with evidence: compare and set on what was read before the look-up began.
--
-- ARGV[ARGS]      id
-- ARGV[ARGS + 1]  fence      as read
-- ARGV[ARGS + 2]  attempt    as read
-- ARGV[ARGS + 3]  outcome    of the response
-- ARGV[ARGS + 4]  payload    the response as JSON
-- ARGV[ARGS + 5]  reference  what a cancel will need, '' for none
-- ARGV[ARGS + 6]  actor      the worker, or the person who decides by hand
-- ARGV[ARGS + 7]  reason     the evidence, in words
-- ARGV[ARGS + 8]  key        as in settle.lua
-- ARGV[ARGS + 9]  launched   as read: a server that forgot a doubt gives its fence to another one
--
-- Returns 'settled'  closed, its response and DOUBT_RESOLVED published
--         'stale'    it is no longer that doubt; nothing was written
local id, fence, attempt, outcome = ARGV[ARGS], ARGV[ARGS + 1], ARGV[ARGS + 2], ARGV[ARGS + 3]
local payload, reference, actor, reason = ARGV[ARGS + 4], ARGV[ARGS + 5], ARGV[ARGS + 6], ARGV[ARGS + 7]
local e = load(id)
if e.state ~= 'in_doubt' or e.fence ~= fence or e.attempt ~= attempt then return 'stale' end
if string.match(e.flight, ':(%d+):%d+$') ~= ARGV[ARGS + 9] then return 'stale' end
local fields = about(e)
fields.actor, fields.reason = actor, reason
fields.message = 'resolved as ' .. outcome .. ': ' .. reason
announce('DOUBT_RESOLVED', id .. ':' .. fence, fields)
own(e, ARGV[ARGS + 8], outcome, payload)
finish(e, payload, reference)
audit('settled', id, outcome)
return done('settled')
