"""What the scripts share: worker/ledger/lua/lib.lua."""

from __future__ import annotations

from tests.model import guard, lanes
from tests.model.promises import publish
from tests.model.rules import Rule
from tests.model.setting import Setting
from tests.model.world import (
    ACCEPTED,
    CLAIMED,
    IN_DOUBT,
    LEASE,
    PARKED,
    QUIET,
    SETTLED,
    Entry,
    Redis,
    World,
)


def new_token(world: World, intent: int) -> int:
    """One that nobody holds: tokens of an intent are only compared with each other."""
    entry = world.redis.entries[intent]
    used = {entry.token if entry else 0}
    for worker in world.workers:
        used.update(one.token for one in worker.hands if one.intent == intent)
        used.update(one[3] for one in worker.inbox if one[1] == intent)
    token = 11
    while token in used:
        token += 1
    return token


# claim.lua


def owned(redis: Redis) -> int:
    """Broker numbers that belong to an intent, as bits."""
    bits = 0
    for entry in redis.entries:
        if entry is not None and entry.state == SETTLED and entry.outcome == ACCEPTED:
            bits |= 1 << entry.number
    return bits


# settle.lua


def to_doubt(world: World, s: Setting, intent: int, entry: Entry, *, counts: bool) -> None:
    entry.state = IN_DOUBT
    entry.fence += 1
    entry.lease = 0
    if not s.on(Rule.DOUBT_HOLDS_LANE):
        lanes.leave(world.redis, s, intent, entry.member, None)
    if counts and not s.is_cancel(intent):
        guard.failed(world, s, entry)


def suspect(world: World, s: Setting, intent: int, entry: Entry) -> None:
    entry.attempt, entry.sequence, entry.generation = 1, 0, -1
    entry.quiet = QUIET if s.on(Rule.SUSPECT_WAITS) else 0
    to_doubt(world, s, intent, entry, counts=False)


def may_be_forgotten(redis: Redis, intent: int) -> bool:
    return redis.unsure >= 0 or bool(redis.strays >> intent & 1)


def finish(
    world: World,
    s: Setting,
    intent: int,
    entry: Entry,
    outcome: int,
    number: int,
    give: list[int] | None,
    *,
    publishes: bool = True,
) -> None:
    """Close an entry and publish its one answer, together. ``give``: takes a lane's parked head, if there is one."""
    redis = world.redis
    # What a resolver has read of it, and has not come to an end with, is of no more use.
    world.watches = [one for one in world.watches if one.intent != intent or one.outcome]
    if s.shows_ids and not s.forgets:
        for order in world.orders:
            if order[0] == intent:
                order[1] = 0
    if publishes:
        publish(world, s, intent, outcome, number)
    redis.entries[intent] = Entry(
        SETTLED,
        entry.content,
        outcome=outcome,
        number=number,
        kept=s.retention if s.on(Rule.RETENTION) else 1,
        owned_before=entry.owned_before,
        launched_after=entry.launched_after,
    )
    if s.on(Rule.LEAVE_LANES):
        lanes.leave(redis, s, intent, entry.member, give)
    if entry.waiting:
        waiting = redis.entries[entry.waiting - 1]
        if waiting is not None and waiting.state == PARKED:
            waiting.lease = 0
    target = s.intents[intent].target
    if target is not None and [target, intent] in redis.cancelling:
        redis.cancelling.remove([target, intent])
        if not lanes.is_held(redis, s, target):
            lanes.advance(redis, s, target, give)


def grant(world: World, intent: int) -> int:
    """Hand an intent to the caller; returns the token."""
    entry = world.redis.entries[intent]
    assert entry is not None
    token = new_token(world, intent)
    entry.state, entry.token, entry.lease = CLAIMED, token, LEASE
    return token


# release.lua
