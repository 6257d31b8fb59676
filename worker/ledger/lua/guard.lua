-- The guard's policy, as local functions; put in front of the scripts that use it.
-- The same policy as worker/guard.py, where the states are drawn. A test holds the two together.
--
-- A guard g is a table: state, failures (launch sequence numbers, ascending), last_success, generation,
-- probation, threshold, and changed, which is true once g differs from what was loaded.
-- It lives in the hash exec:{ROUTE}:state, in the fields guard_state, guard_failures (comma list),
-- guard_last_success, guard_generation, guard_probation ('0' or '1') and guard_threshold.
--
-- guard_load(key)                      the guard in that hash; what is missing is that of a fresh NORMAL guard
-- guard_save(key, g)                   write g back if it changed
-- guard_admits(g)                      true when orders may be launched
-- guard_succeeded(g, seq, generation)  the broker holds the order of this launch; changes g, returns nil
-- guard_failed(g, seq, generation)     this launch failed, by an outcome that counts; changes g,
--                                      returns 'GUARD_TRIPPED', 'LOCKDOWN' or nil
-- guard_reset(g, approve)              a person opens it; approve is true or false; changes g,
--                                      returns 'GUARD_RESET', or nil and the state that refuses it
-- seq and generation are those the launch was given, as numbers or strings.
local function guard_load(key)
  local f = redis.call('HMGET', key, 'guard_state', 'guard_failures', 'guard_last_success',
    'guard_generation', 'guard_probation', 'guard_threshold')
  local g = {
    state = f[1] or 'NORMAL', failures = {}, last_success = tonumber(f[3] or 0),
    generation = tonumber(f[4] or 0), probation = f[5] == '1', threshold = tonumber(f[6] or 3),
    changed = false,
  }
  if f[2] and f[2] ~= '' then
    for seq in string.gmatch(f[2], '%d+') do g.failures[#g.failures + 1] = tonumber(seq) end
  end
  return g
end

local function guard_save(key, g)
  if not g.changed then return end
  local failures = {}
  for i, seq in ipairs(g.failures) do failures[i] = string.format('%.0f', seq) end
  redis.call('HSET', key,
    'guard_state', g.state, 'guard_failures', table.concat(failures, ','),
    'guard_last_success', string.format('%.0f', g.last_success),
    'guard_generation', string.format('%.0f', g.generation),
    'guard_probation', g.probation and '1' or '0',
    'guard_threshold', string.format('%.0f', g.threshold))
  g.changed = false
end

local function guard_admits(g)
  return g.state == 'NORMAL' or g.state == 'WARNING'
end

local function guard_succeeded(g, seq, generation)
  if tonumber(generation) ~= g.generation or not guard_admits(g) then return nil end
  seq = tonumber(seq)
  if seq > g.last_success then g.last_success, g.changed = seq, true end
  if g.probation then g.probation, g.changed = false, true end
  if g.state == 'WARNING' then
    local later = {}
    for _, failure in ipairs(g.failures) do
      if failure > seq then later[#later + 1] = failure end
    end
    g.failures, g.state, g.changed = later, #later > 0 and 'WARNING' or 'NORMAL', true
  end
  return nil
end

local function guard_failed(g, seq, generation)
  if tonumber(generation) ~= g.generation or not guard_admits(g) then return nil end
  seq = tonumber(seq)
  if seq <= g.last_success then return nil end
  local at = #g.failures + 1
  while at > 1 and g.failures[at - 1] >= seq do at = at - 1 end
  if g.failures[at] == seq then return nil end
  table.insert(g.failures, at, seq)
  g.changed = true
  if #g.failures < g.threshold then
    g.state = 'WARNING'
    return nil
  end
  g.generation = g.generation + 1
  g.state = g.probation and 'LOCKDOWN' or 'FAIL'
  return g.probation and 'LOCKDOWN' or 'GUARD_TRIPPED'
end

local function guard_reset(g, approve)
  if guard_admits(g) or (g.state == 'LOCKDOWN' and not approve) then return nil, g.state end
  g.state, g.failures, g.probation = 'NORMAL', {}, true
  g.generation, g.changed = g.generation + 1, true
  return 'GUARD_RESET'
end
