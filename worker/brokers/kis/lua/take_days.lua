-- Say which days KIS has told, and let one caller a date ask for them anew.
--
-- KEYS[1]  token  hash, see take_token; besides, days and days_asked
-- ARGV[1]  today  a date
--
-- Returns {'ask', days}   ask KIS, and bring what it says
--         {'told', days}  it was asked today; '' when it has never answered
local days = redis.call('HGET', KEYS[1], 'days') or ''
if redis.call('HGET', KEYS[1], 'days_asked') == ARGV[1] then return {'told', days} end
redis.call('HSET', KEYS[1], 'days_asked', ARGV[1])
return {'ask', days}
