"""
The ledger's scripts, as worker/ledger/lua/*.lua have them; each function names its own. One call is one step, and they
change nothing but `Redis` and what the promises are judged by.
"""

from __future__ import annotations

from tests.model import lanes
from tests.model.promises import judge_launch, publish, stop, trip
from tests.model.rules import Rule
from tests.model.setting import Setting
from tests.model.world import (
    ACCEPTED,
    CLAIMED,
    DENIED,
    EXPIRED,
    IN_DOUBT,
    IN_FLIGHT,
    LEASE,
    NEVER,
    PARKED,
    QUIET,
    REJECTED,
    SETTLED,
    TOMBSTONE,
    WORKING,
    Entry,
    Redis,
    World,
)

#: What a launch or a cancel may answer besides an outcome.
GO, LATER, STALE, WAITING = -1, -2, -3, -4
#: What a claim may answer.
IS_LAUNCHED, IS_GRANTED, IS_PARKED, IS_KNOWN, IS_CONFLICT = range(5)


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


def claim(world: World, s: Setting, intent: int, token: int, content: int, number: int, leave: bool) -> int:
    """``leave``: launch it in the same step, if it can leave at once."""
    redis = world.redis
    entry = redis.entries[intent]
    if entry is None:
        return _enter(world, s, intent, token, content, number, leave)
    if entry.state == TOMBSTONE:
        return _enter(world, s, intent, token, content, number, False)
    if entry.content != content and s.on(Rule.FINGERPRINT):
        return IS_CONFLICT
    _rejoin(redis, s, intent, entry, number)
    if entry.token == token and entry.state in (CLAIMED, IN_FLIGHT):
        return IS_GRANTED
    return IS_KNOWN


def _enter(world: World, s: Setting, intent: int, token: int, content: int, number: int, leave: bool) -> int:
    redis = world.redis
    old = redis.entries[intent]
    member, waits = 0, False
    if not s.is_cancel(intent):
        member = lanes.place_of(redis, s, intent, number)
        waits = lanes.must_wait(redis, s, intent, member)
    entry = (
        Entry(PARKED, content, 0, member, lease=NEVER) if waits else Entry(CLAIMED, content, token, member)
    )
    if not waits:
        entry.lease = LEASE
    entry.cancel = old.cancel if old else 0
    redis.entries[intent] = entry
    if waits:
        return IS_PARKED
    if leave and _may_leave(world, s, intent):
        _note_launch(world, s, intent, entry, 1)
        return IS_LAUNCHED
    return IS_GRANTED


def _may_leave(world: World, s: Setting, intent: int) -> bool:
    redis = world.redis
    if s.is_cancel(intent) or redis.unsure >= 0 or redis.halted or redis.tripped or not world.fresh[intent]:
        return False
    return not lanes.is_held(redis, s, intent) and not redis.suspects >> intent & 1


def _rejoin(redis: Redis, s: Setting, intent: int, entry: Entry, number: int) -> None:
    if s.is_cancel(intent):
        return
    place = entry.member
    holds = place and entry.state != SETTLED
    if holds and place == number:
        return
    if not (holds and number < place and [number, intent] in redis.lanes):
        lanes.leave(redis, s, intent, number, None)
        return
    lanes.move_up(redis, intent, entry, place, number)
    if lanes.head(redis, s, intent) == [number, intent]:
        lanes.advance(redis, s, intent, None)


# launch.lua


def launch(world: World, s: Setting, intent: int, token: int, attempt: int) -> int:
    redis = world.redis
    entry = redis.entries[intent]
    if entry is None or not _may_launch(s, entry, token, attempt):
        return STALE
    if redis.unsure >= 0:
        return LATER
    if entry.state == CLAIMED and redis.suspects >> intent & 1:
        _suspect(world, s, intent, entry)
        return STALE
    if entry.cancel:
        return DENIED
    if entry.waiting and [intent, entry.waiting - 1] in redis.cancelling:
        return DENIED
    if not world.fresh[intent] and s.on(Rule.EXPIRY_IN_LAUNCH):
        return EXPIRED
    if (redis.halted or redis.tripped) and s.on(Rule.GATE_IN_LAUNCH):
        return DENIED
    if lanes.is_held(redis, s, intent) and s.on(Rule.LANE_HELD):
        return LATER
    _note_launch(world, s, intent, entry, attempt)
    return GO


def _may_launch(s: Setting, entry: Entry, token: int, attempt: int) -> bool:
    if entry.token != token:
        return False
    if entry.state == CLAIMED:
        return True
    if entry.state == IN_DOUBT and not s.on(Rule.DOUBT_ENDS_LAUNCHES):
        return True
    return entry.state == IN_FLIGHT and attempt in (entry.attempt, entry.attempt + 1)


def _note_launch(world: World, s: Setting, intent: int, entry: Entry, attempt: int) -> None:
    redis = world.redis
    judge_launch(world, s, intent)
    if entry.state != IN_DOUBT:
        entry.state = IN_FLIGHT
        entry.quiet = QUIET if s.on(Rule.RESOLUTION_WAITS) else 0
    entry.attempt, entry.lease = attempt, LEASE
    entry.generation = redis.generation
    if s.threshold:
        redis.sequence += 1
        entry.sequence = redis.sequence
    if not s.shows_ids:
        _note_others(redis, intent, entry)


def _note_others(redis: Redis, intent: int, entry: Entry) -> None:
    """What `tests.model.broker` needs to tell a later order from an earlier one."""
    entry.owned_before = owned(redis)
    entry.launched_after = 0
    for number, other in enumerate(redis.entries):
        if other is None or number == intent:
            continue
        other.launched_after &= ~(1 << intent)
        if other.state in (IN_FLIGHT, IN_DOUBT) and not other.quiet:
            entry.launched_after |= 1 << number


def owned(redis: Redis) -> int:
    """Broker numbers that belong to an intent, as bits."""
    bits = 0
    for entry in redis.entries:
        if entry is not None and entry.state == SETTLED and entry.outcome == ACCEPTED:
            bits |= 1 << entry.number
    return bits


# settle.lua


def settle_answer(
    world: World,
    s: Setting,
    intent: int,
    token: int,
    attempt: int,
    outcome: int,
    number: int,
    give: list[int] | None,
) -> bool:
    """False: the entry is another's now."""
    entry = world.redis.entries[intent]
    if entry is None:
        return _stale(world, intent, None, outcome, number)
    if entry.state == SETTLED and (entry.outcome, entry.number) == (outcome, number):
        return True
    if entry.token == token and entry.state == CLAIMED and not entry.attempt and attempt:
        # Its launch was forgotten, and its holder knows the end of it all the same.
        entry.state, entry.attempt, entry.generation = IN_FLIGHT, attempt, world.redis.generation
    unheard = (
        outcome not in (ACCEPTED, REJECTED) and entry.state == IN_FLIGHT and entry.attempt == attempt + 1
    )
    if entry.token != token or not (entry.attempt == attempt or unheard):
        return _stale(world, intent, entry, outcome, number)
    if entry.state == IN_DOUBT:
        if outcome not in (ACCEPTED, REJECTED):
            return False
    elif entry.state == IN_FLIGHT:
        if not s.is_cancel(intent):
            _count(world, s, entry, outcome)
    elif entry.state != CLAIMED:
        return _stale(world, intent, entry, outcome, number)
    finish(world, s, intent, entry, outcome, number, give)
    return True


def _stale(world: World, intent: int, entry: Entry | None, outcome: int, number: int) -> bool:
    if outcome == ACCEPTED and not (entry and entry.number == number):
        if not (entry and entry.state == SETTLED) and _may_be_forgotten(world.redis, intent):
            world.redis.strays |= 1 << intent
            world.redis.suspects |= 1 << intent
        else:
            # ORPHAN_ORDER, and the route is halted.
            world.redis.halted = 1
    return False


def _may_be_forgotten(redis: Redis, intent: int) -> bool:
    return redis.unsure >= 0 or bool(redis.strays >> intent & 1)


def settle_doubt(world: World, s: Setting, intent: int, token: int, attempt: int) -> bool:
    entry = world.redis.entries[intent]
    if entry is None or entry.token != token or entry.attempt != attempt:
        return False
    if entry.state == IN_DOUBT:
        return True
    if entry.state != IN_FLIGHT:
        return False
    to_doubt(world, s, intent, entry, counts=True)
    return True


def _count(world: World, s: Setting, entry: Entry, outcome: int) -> None:
    if outcome == ACCEPTED:
        _succeeded(world, s, entry)
    elif outcome not in (DENIED, EXPIRED):
        _failed(world, s, entry)


# guard.lua


def _succeeded(world: World, s: Setting, entry: Entry) -> None:
    redis = world.redis
    if not s.threshold or entry.generation != redis.generation or redis.tripped:
        return
    redis.last_success = max(redis.last_success, entry.sequence)
    redis.failures = [one for one in redis.failures if one > entry.sequence]


def _failed(world: World, s: Setting, entry: Entry) -> None:
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


def reset_guard(world: World) -> None:
    """control.lua, a person's reset."""
    redis = world.redis
    redis.tripped, redis.failures = 0, []
    redis.generation += 1


# lib.lua


def to_doubt(world: World, s: Setting, intent: int, entry: Entry, *, counts: bool) -> None:
    entry.state = IN_DOUBT
    entry.fence += 1
    entry.lease = 0
    if not s.on(Rule.DOUBT_HOLDS_LANE):
        lanes.leave(world.redis, s, intent, entry.member, None)
    if counts and not s.is_cancel(intent):
        _failed(world, s, entry)


def _suspect(world: World, s: Setting, intent: int, entry: Entry) -> None:
    entry.attempt, entry.sequence, entry.generation, entry.quiet = 1, 0, -1, 0
    to_doubt(world, s, intent, entry, counts=False)


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


# resolve.lua


def resolve(
    world: World, s: Setting, intent: int, fence: int, attempt: int, outcome: int, number: int
) -> None:
    entry = world.redis.entries[intent]
    is_same = (
        entry is not None and entry.state == IN_DOUBT and (entry.fence, entry.attempt) == (fence, attempt)
    )
    if entry is not None and (is_same or not s.on(Rule.RESOLVE_COMPARES)):
        finish(world, s, intent, entry, outcome, number, None)


# cancel.lua


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


def bury(world: World, s: Setting, intent: int, content: int, number: int, conflict: bool) -> bool:
    """One entry into the dead-letter stream. ``conflict``: as that; else as unreadable, which answers a free id."""
    redis = world.redis
    entry = redis.entries[intent]
    is_open = entry is not None and entry.state not in (SETTLED, TOMBSTONE)
    is_same = entry is not None and entry.member == number
    if is_open and is_same and not conflict and s.on(Rule.BURY_UNOPENED):
        return False
    if not s.is_cancel(intent) and not (is_open and is_same) and s.on(Rule.LEAVE_LANES):
        lanes.leave(redis, s, intent, number, None)
    redis.buried |= 1 << intent
    is_free = not is_open or not s.on(Rule.BURY_UNOPENED)
    if not conflict and is_free and not (entry is not None and entry.state == SETTLED):
        finish(world, s, intent, entry or Entry(CLAIMED, content), DENIED, 0, None)
    return True


# register.lua and reconcile.lua


def register(world: World, s: Setting) -> None:
    redis = world.redis
    if redis.server == world.life:
        return
    redis.server = world.life
    redis.unsure = QUIET
    redis.before = sum(1 << intent for intent, times in enumerate(world.sent) if times)
    for intent, entry in enumerate(redis.entries):
        if entry is not None and entry.state == IN_FLIGHT:
            to_doubt(world, s, intent, entry, counts=False)


def reconcile(world: World, s: Setting, listed: set[int]) -> None:
    """``listed``: the intents that the broker's list shows."""
    redis = world.redis
    unlaunched = (CLAIMED, PARKED, TOMBSTONE)
    strays = {one for one in listed if (entry := redis.entries[one]) is None or entry.state in unlaunched}
    redis.unsure = -1
    if strays:
        redis.suspects |= redis.before
    for intent in strays:
        redis.strays |= 1 << intent
        redis.suspects |= 1 << intent


def halt(world: World) -> None:
    """control.lua."""
    world.redis.halted = 1


def halt_is_known(world: World) -> None:
    """The person was told that it was done."""
    stop(world, 1)
