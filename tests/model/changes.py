"""When another server answers than before: worker/ledger/lua/register.lua and reconcile.lua, and worker/reconciler.py."""

from __future__ import annotations

from tests.model.lib import owned, to_doubt
from tests.model.rules import Rule
from tests.model.setting import Setting
from tests.model.world import (
    CLAIMED,
    IN_DOUBT,
    IN_FLIGHT,
    PARKED,
    QUIET,
    TOMBSTONE,
    Redis,
    World,
)


def register(world: World, s: Setting) -> None:
    redis = world.redis
    if redis.server == world.life:
        return
    redis.server = world.life
    if s.on(Rule.READ_ANEW):
        world.watches = []
    redis.unsure = QUIET
    redis.before = sum(1 << intent for intent, times in enumerate(world.sent) if times)
    for intent, entry in enumerate(redis.entries):
        if entry is not None and entry.state == IN_FLIGHT:
            to_doubt(world, s, intent, entry, counts=False)


def reconcile(world: World, s: Setting, shown: list[int]) -> None:
    """``shown``: the numbers in the broker's list."""
    redis = world.redis
    redis.unsure = -1
    intents = [world.orders[number - 1][0] for number in shown]
    if s.shows_ids:
        unlaunched = (CLAIMED, PARKED, TOMBSTONE)
        strays = {
            one for one in intents if (entry := redis.entries[one]) is None or entry.state in unlaunched
        }
        for one in strays:
            redis.strays |= 1 << one
            redis.suspects |= 1 << one
    else:
        strays = _strays_by_key(redis, s, shown, intents)
        redis.halted |= bool(strays)
    if strays:
        redis.suspects |= redis.before


def _strays_by_key(redis: Redis, s: Setting, shown: list[int], intents: list[int]) -> set[int]:
    mine = owned(redis)
    # An order that looks like one in doubt is that doubt's to explain, but where launches may be forgotten.
    forgets = s.forgets and not s.confirms and s.on(Rule.FORGOTTEN_TIME)
    under_way = {
        s.lane_of(one)
        for one, entry in enumerate(redis.entries)
        if entry is not None and entry.state in (IN_FLIGHT, IN_DOUBT) and not forgets
    }
    return {
        one
        for number, one in zip(shown, intents, strict=True)
        if not mine >> number & 1 and s.lane_of(one) not in under_way
    }


def resume(world: World) -> None:
    """control.lua: a person's word ends the wait, but what was made before stays suspect."""
    redis = world.redis
    redis.halted = 0
    if redis.unsure >= 0:
        redis.unsure = -1
        redis.suspects |= redis.before
