"""What a CANCEL may do: worker/ledger/lua/cancel.lua."""

from __future__ import annotations

from tests.model.ledger import GO, LATER, STALE, WAITING
from tests.model.rules import Rule
from tests.model.setting import Setting
from tests.model.world import (
    ACCEPTED,
    CLAIMED,
    DENIED,
    IN_FLIGHT,
    LEASE,
    PARKED,
    QUIET,
    SETTLED,
    TOMBSTONE,
    WORKING,
    Entry,
    Redis,
    World,
)


def cancel(world: World, s: Setting, intent: int, token: int, attempt: int) -> int:
    """GO, WAITING, LATER, STALE, or DENIED: there is nothing to cancel at the broker."""
    redis = world.redis
    own = redis.entries[intent]
    target = s.intents[intent].target
    assert target is not None
    if own is None or own.token != token:
        return STALE
    again = own.state == IN_FLIGHT and attempt in (own.attempt, own.attempt + 1)
    if not (own.state == CLAIMED or again):
        return STALE
    entry = redis.entries[target]
    if redis.unsure >= 0 and not (entry and entry.state == SETTLED):
        return LATER
    if entry is None or entry.state == TOMBSTONE:
        redis.entries[target] = Entry(TOMBSTONE, cancel=intent + 1)
        return DENIED
    if entry.state in (CLAIMED, PARKED):
        entry.cancel = intent + 1
        if entry.state == PARKED:
            entry.lease = 0
        return DENIED
    if entry.state != SETTLED:
        if _hold(redis, s, target, intent):
            entry.waiting = intent + 1
        return _wait(own, again)
    if entry.outcome != ACCEPTED:
        return DENIED
    if not _hold(redis, s, target, intent):
        return _wait(own, again)
    if world.orders[entry.number - 1][2] == WORKING:
        world.cancels_timely |= 1 << intent
    own.state, own.attempt, own.lease = IN_FLIGHT, attempt, LEASE
    own.quiet = QUIET if s.on(Rule.RESOLUTION_WAITS) else 0
    return GO


def _hold(redis: Redis, s: Setting, target: int, intent: int) -> bool:
    holders = [one for one in redis.cancelling if one[0] == target]
    if holders and [target, intent] not in holders and s.on(Rule.ONE_CANCEL):
        return False
    if [target, intent] not in holders:
        redis.cancelling = sorted([*redis.cancelling, [target, intent]])
    return True


def _wait(own: Entry, again: bool) -> int:
    if not again:
        own.state, own.token, own.lease = PARKED, 0, LEASE
    return WAITING


# bury.lua
