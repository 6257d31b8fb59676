"""
Lanes, as lib.lua and claim.lua keep them: one sorted set of [queue entry, intent]; the first of a symbol is its head.
"""

from __future__ import annotations

from tests.model.setting import Setting
from tests.model.world import PARKED, Entry, Redis


def head(redis: Redis, s: Setting, intent: int) -> list[int] | None:
    lane = s.lane_of(intent)
    return next((one for one in redis.lanes if s.lane_of(one[1]) == lane), None)


def register(redis: Redis, number: int, intent: int) -> bool:
    """False: it was there already."""
    if [number, intent] in redis.lanes:
        return False
    redis.lanes = sorted([*redis.lanes, [number, intent]])
    return True


def place_of(redis: Redis, s: Setting, intent: int, number: int) -> int:
    """The place that an entry gives its intent: an earlier entry of the same intent, if that is the lane's head."""
    first = head(redis, s, intent)
    if first is None or first[0] == number or first[1] != intent:
        return number
    if [number, intent] in redis.lanes:
        redis.lanes.remove([number, intent])
    return first[0]


def must_wait(redis: Redis, s: Setting, intent: int, member: int) -> bool:
    """Take one's place in the lane. True: somebody is before it."""
    before = head(redis, s, intent)
    if before == [member, intent]:
        return False
    if not register(redis, member, intent):
        return True
    if before is None:
        return False
    if head(redis, s, intent) != [member, intent]:
        return True
    # It should have been there before the head, which may be on its way: one of a lane at a time.
    other = redis.entries[before[1]]
    return other is None or other.state != PARKED


def move_up(redis: Redis, intent: int, entry: Entry, old: int, new: int) -> None:
    if [old, intent] in redis.lanes:
        redis.lanes.remove([old, intent])
    entry.member = new


def advance(redis: Redis, s: Setting, intent: int, give: list[int] | None) -> None:
    """If the head of this intent's lane is parked, hand it to the caller, or note that somebody can take it."""
    first = head(redis, s, intent)
    if first is None:
        return
    entry = redis.entries[first[1]]
    if entry is None or entry.state != PARKED:
        return
    if entry.member != first[0]:
        move_up(redis, first[1], entry, entry.member, first[0])
    if give is not None and not give:
        give.append(first[1])
    else:
        redis.ready |= s.lane_bit(intent)


def leave(redis: Redis, s: Setting, intent: int, member: int, give: list[int] | None) -> None:
    if member and [member, intent] in redis.lanes:
        redis.lanes.remove([member, intent])
        advance(redis, s, intent, give)


def is_held(redis: Redis, s: Setting, intent: int) -> bool:
    """Whether a CANCEL of the lane is open."""
    lane = s.lane_of(intent)
    return any(s.lane_of(target) == lane for target, _ in redis.cancelling)
