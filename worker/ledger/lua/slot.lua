-- Take one slot of the broker's call limit for a look-up. It goes before orders and behind cancels.
--
-- ARGV[ARGS]      calls      as in launch.lua
-- ARGV[ARGS + 1]  window_us
--
-- Returns 0 when the call may be made, else in how many ms to ask again
return done(take_slot('look', tonumber(ARGV[ARGS]), tonumber(ARGV[ARGS + 1])))
