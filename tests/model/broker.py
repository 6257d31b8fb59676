"""The broker: what it takes, what its list shows, and what a reading of that proves (worker/evidence.py, resolver.py)."""

from __future__ import annotations

from tests.model import lib
from tests.model.promises import judge_arrival
from tests.model.rules import Rule
from tests.model.setting import BAD_READING, Setting
from tests.model.world import (
    ACCEPTED,
    BY_HAND,
    CANCELLED,
    FILLED,
    IN_DOUBT,
    LAG,
    NOT_PLACED,
    REJECTED,
    SENT,
    WORKING,
    Entry,
    Watch,
    World,
)

#: Readings that must agree on an absence.
AGREEING = 2


def take(world: World, s: Setting, place: int) -> None:
    """The request arrives, and the broker does as it says."""
    intent, token, attempt, _, target = world.wires.pop(place)
    if s.is_cancel(intent):
        order = world.orders[target - 1]
        if order[2] != WORKING:
            _reply(world, intent, token, attempt, REJECTED, 0)
            return
        order[2], order[4] = CANCELLED, LAG
        world.cancels_taken |= 1 << intent
        number = target
    else:
        world.orders.append([intent, LAG, WORKING, 0 if s.stale_list else 1, 0])
        number = len(world.orders)
    judge_arrival(world, s, intent)
    _reply(world, intent, token, attempt, ACCEPTED, number)


def refuse(world: World, s: Setting, place: int) -> None:
    intent, token, attempt, _, _ = world.wires.pop(place)
    _reply(world, intent, token, attempt, REJECTED, 0)


def _reply(world: World, intent: int, token: int, attempt: int, outcome: int, number: int) -> None:
    """To whoever waits for it; a process that has died does not."""
    for worker in world.workers:
        for hand in worker.hands:
            if (hand.intent, hand.token, hand.attempt, hand.phase) == (intent, token, attempt, SENT):
                hand.reply = outcome * 16 + number
                return


def rows(world: World) -> list[int]:
    """The numbers that its list shows."""
    return [number for number, one in enumerate(world.orders, 1) if not one[1] and one[3]]


def catch_up(world: World) -> None:
    """A list that is older than its lag shows one more order."""
    next(one for one in world.orders if not one[3])[3] = 1


def end_session(world: World) -> None:
    """It takes no more orders, and its list is final."""
    world.session_over = 1
    for order in world.orders:
        order[3] = 1


# What a reading proves.


def watch_of(world: World, s: Setting, by: int, intent: int, entry: Entry) -> Watch:
    """As `Resolver._watch`: from this resolver's first sight of the doubt."""
    for one in world.watches:
        if (one.by, one.intent, one.fence) == (by, intent, entry.fence):
            return one
    waits = max(entry.quiet, LAG) if s.on(Rule.RESOLUTION_WAITS) else 0
    watch = Watch(by, intent, entry.fence, entry.attempt, waits)
    world.watches.append(watch)
    return watch


def look(world: World, s: Setting, by: int, intent: int, is_bad: bool) -> None:
    """look.lua, one reading of the list, and its judgement. ``is_bad``: the list lacks a row that it should show."""
    entry = world.redis.entries[intent]
    assert entry is not None and entry.state == IN_DOUBT
    watch = watch_of(world, s, by, intent, entry)
    watch.attempt = entry.attempt
    if is_bad:
        world.left[BAD_READING] -= 1
    if s.is_cancel(intent):
        _judge_cancel(world, s, watch)
    elif s.shows_ids:
        _judge_by_id(world, s, watch, [] if is_bad else rows(world))
    else:
        _judge_by_key(world, s, watch, entry, rows(world))


def _judge_by_id(world: World, s: Setting, watch: Watch, shown: list[int]) -> None:
    found = [number for number in shown if world.orders[number - 1][0] == watch.intent]
    if found:
        watch.outcome, watch.number = ACCEPTED, found[0]
    else:
        _tell_absence(s, watch)


def _judge_by_key(world: World, s: Setting, watch: Watch, entry: Entry, shown: list[int]) -> None:
    owned = lib.owned(world.redis) if s.on(Rule.OWNED_NUMBERS) else 0
    strangers = [
        number
        for number in shown
        if not owned >> number & 1 and _lane(world, s, number) == s.lane_of(watch.intent)
    ]
    exclusive = s.exclusive or not s.on(Rule.EXCLUSIVE)
    redis = world.redis
    if s.on(Rule.FORGOTTEN_TIME) and (redis.unsure >= 0 or redis.suspects >> watch.intent & 1):
        watch.telling = 0
    elif len(strangers) == 1 and exclusive:
        watch.outcome, watch.number = ACCEPTED, strangers[0]
    elif strangers:
        watch.telling = 0
    elif world.session_over or not s.on(Rule.REACHES_PAST) or _reaches_past(world, s, watch, entry, shown):
        _tell_absence(s, watch)


def _lane(world: World, s: Setting, number: int) -> str:
    """The symbol of a row; orders by hand are of the first intent's."""
    intent = world.orders[number - 1][0]
    return s.lane_of(0 if intent == BY_HAND else intent)


def _reaches_past(world: World, s: Setting, watch: Watch, entry: Entry, shown: list[int]) -> bool:
    for other in world.redis.entries:
        if other is None or other.outcome != ACCEPTED or other.number not in shown:
            continue
        if s.on(Rule.LATER_BY_LAUNCH):
            if other.launched_after >> watch.intent & 1:
                return True
        elif not entry.owned_before >> other.number & 1:
            return True
    return False


def _judge_cancel(world: World, s: Setting, watch: Watch) -> None:
    target = s.intents[watch.intent].target
    assert target is not None
    answered = world.redis.entries[target]
    assert answered is not None
    _, _, status, _, lag = world.orders[answered.number - 1]
    if not lag and status == CANCELLED:
        watch.outcome, watch.number = ACCEPTED, answered.number
    elif not lag and status == FILLED:
        watch.outcome = REJECTED
    else:
        _tell_absence(s, watch)


def _tell_absence(s: Setting, watch: Watch) -> None:
    if watch.absent_in:
        return
    watch.telling += 1
    if watch.telling >= (AGREEING if s.on(Rule.TWO_READINGS) else 1):
        watch.outcome = NOT_PLACED
