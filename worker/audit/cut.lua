-- Forget the oldest part of the audit trail, up to the end of one seal. That seal stays as the anchor of what is kept,
-- and the trail itself tells that it was cut there: nobody else can cut it unseen.
--
-- KEYS[1] seals    stream
-- KEYS[2] audit    stream
-- ARGV[1] entry    of the seal, in its stream
-- ARGV[2] minimum  id of the first entry of the trail that stays
-- ARGV[3] worker   who does it
-- ARGV[4] records  what the trail is to tell, as JSON
--
-- Returns 'cut', or 'gone' when that seal is there no more: nothing was changed
local seals, audit, entry, minimum, worker, records = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #redis.call('XRANGE', seals, entry, entry) == 0 then return 'gone' end
redis.call('XADD', audit, '*', 'worker', worker, 'records', records)
redis.call('XTRIM', audit, 'MINID', '~', minimum)
redis.call('XTRIM', seals, 'MINID', entry)
return 'cut'
