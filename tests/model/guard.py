"""The guard in Redis: worker/ledger/lua/guard.lua."""

from __future__ import annotations

from tests.model.promises import trip
from tests.model.rules import Rule
from tests.model.setting import Setting
from tests.model.world import (
    Entry,
    World,
)


def succeeded(world: World, s: Setting, entry: Entry) -> None:
    redis = world.redis
    if not s.threshold or entry.generation != redis.generation or redis.tripped:
        return
    redis.last_success = max(redis.last_success, entry.sequence)
    redis.failures = [one for one in redis.failures if one > entry.sequence]


def failed(world: World, s: Setting, entry: Entry) -> None:
    redis = world.redis
    if not s.threshold or redis.tripped:
        return
    if s.on(Rule.GUARD_EPOCH) and entry.generation != redis.generation:
        return
    if entry.sequence <= redis.last_success or entry.sequence in redis.failures:
        return
    redis.failures = sorted([*redis.failures, entry.sequence])
    if len(redis.failures) >= s.threshold:
        redis.tripped = 1
        redis.generation += 1
        trip(world, s, redis.failures)


def reset(world: World) -> None:
    """control.lua, a person's reset."""
    redis = world.redis
    redis.tripped, redis.failures = 0, []
    redis.generation += 1


# lib.lua
