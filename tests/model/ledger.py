"""
The ledger's scripts, as worker/ledger/lua/*.lua have them; a comment names each. One call is one step, and changes nothing
but `Redis` and what the promises are judged by.
"""

from __future__ import annotations

from tests.model import guard, lanes
from tests.model.lib import finish, may_be_forgotten, owned, suspect, to_doubt
from tests.model.promises import judge_launch
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
    Entry,
    Redis,
    World,
)

#: What a launch or a cancel may answer besides an outcome.
GO, LATER, STALE, WAITING = -1, -2, -3, -4
#: What a claim may answer.
IS_LAUNCHED, IS_GRANTED, IS_PARKED, IS_KNOWN, IS_CONFLICT = range(5)


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


# launch.lua


def launch(world: World, s: Setting, intent: int, token: int, attempt: int) -> int:
    redis = world.redis
    entry = redis.entries[intent]
    if entry is None or not _may_launch(s, entry, token, attempt):
        return STALE
    if redis.unsure >= 0:
        return LATER
    if entry.state == CLAIMED and redis.suspects >> intent & 1:
        suspect(world, s, intent, entry)
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
        if not (entry and entry.state == SETTLED) and may_be_forgotten(world.redis, intent):
            world.redis.strays |= 1 << intent
            world.redis.suspects |= 1 << intent
        else:
            # ORPHAN_ORDER, and the route is halted.
            world.redis.halted = 1
    return False


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
        guard.succeeded(world, s, entry)
    elif outcome not in (DENIED, EXPIRED):
        guard.failed(world, s, entry)


# guard.lua


# release.lua, resolve.lua and bury.lua


def release(world: World, intent: int, token: int) -> None:
    entry = world.redis.entries[intent]
    if entry is not None and entry.state == CLAIMED and entry.token == token:
        entry.state, entry.token, entry.lease = PARKED, 0, 0


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
