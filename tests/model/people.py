"""Everything that no worker does: the strategy, people, the network, the broker, Redis itself, and time."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import broker, changes, guard, ledger
from tests.model.promises import stop, tell
from tests.model.rules import Rule
from tests.model.sending import give_up_late
from tests.model.setting import FILL, HALT, HAND_ORDER, REDIS_DIES, REFUSAL, RESET, Setting
from tests.model.step import Step
from tests.model.world import (
    ACCEPTED,
    BY_HAND,
    FILLED,
    IN_DOUBT,
    LAG,
    NOT_PLACED,
    WORKING,
    World,
    forget,
    is_timed,
    remember,
    tick,
)


def steps(world: World, s: Setting) -> Iterator[Step]:
    yield from _strategy(world, s)
    yield from _broker(world, s)
    yield from _persons(world, s)
    if s.forgets:
        yield from _redis(world, s)
    if is_timed(world):
        yield Step("time passes", False, _tick, ())


def _strategy(world: World, s: Setting) -> Iterator[Step]:
    if not s.asks_again:
        return
    for intent, about in enumerate(s.intents):
        if not world.sent[intent] or (world.sent[intent] == 1 and world.redis.responses[intent]):
            # Nobody waits for the strategy: all that it has sent must end without another word of it.
            yield Step(f"the strategy enqueues {about.name} again", True, _enqueue, (intent,))


def _enqueue(world: World, s: Setting, intent: int) -> None:
    world.sent[intent] += 1
    world.numbered += 1
    world.redis.queue.append([world.numbered, intent, 0, 0])


def _broker(world: World, s: Setting) -> Iterator[Step]:
    for place, wire in enumerate(world.wires):
        what = s.intents[wire[0]].name
        if not world.session_over:
            yield Step(f"the broker takes {what}", False, broker.take, (place,))
        if world.left[REFUSAL] or world.session_over:
            yield Step(f"the broker refuses {what}", True, _refuse, (place,))
    if world.left[FILL]:
        for place, order in enumerate(world.orders):
            if order[2] == WORKING:
                yield Step(f"order {place + 1} is filled", True, _fill, (place,))
    if s.stale_list and any(not one[3] for one in world.orders):
        yield Step("the broker's list shows one more order", False, _catch_up, ())
    if not s.shows_ids and not world.session_over:
        yield Step("the session ends", False, _end_session, ())
    if world.left[HAND_ORDER]:
        text = f"somebody places by hand what looks like {s.intents[0].name}"
        yield Step(text, True, _place_by_hand, ())


def _refuse(world: World, s: Setting, place: int) -> None:
    if not world.session_over:
        world.left[REFUSAL] -= 1
    broker.refuse(world, s, place)


def _fill(world: World, s: Setting, place: int) -> None:
    world.left[FILL] -= 1
    world.orders[place][2], world.orders[place][4] = FILLED, LAG


def _catch_up(world: World, s: Setting) -> None:
    broker.catch_up(world)


def _end_session(world: World, s: Setting) -> None:
    broker.end_session(world)


def _place_by_hand(world: World, s: Setting) -> None:
    world.left[HAND_ORDER] -= 1
    world.orders.append([BY_HAND, LAG, WORKING, 1, 0])


def _persons(world: World, s: Setting) -> Iterator[Step]:
    redis = world.redis
    if world.left[HALT] and not redis.halted:
        yield Step("a person halts the route", True, _halt, ())
    if (redis.halted or redis.unsure >= 0) and world.left[HALT]:
        yield Step("a person resumes it", True, _resume, ())
    if redis.tripped and world.left[RESET]:
        yield Step("a person resets the guard", True, _reset, ())
    if s.person:
        for intent, entry in enumerate(redis.entries):
            if entry is not None and entry.state == IN_DOUBT and not (entry.quiet and s.on(Rule.HAND_WAITS)):
                text = f"a person ends the doubt about {s.intents[intent].name} by what the list shows"
                yield Step(text, False, _decide, (intent,))


def _halt(world: World, s: Setting) -> None:
    world.left[HALT] -= 1
    world.redis.halted = 1
    if s.forgets and s.confirms and s.on(Rule.CONFIRMED):
        remember(world)
        tell(world, s)
    # Only now is the person told that it was done.
    stop(world, 1)


def _resume(world: World, s: Setting) -> None:
    world.left[HALT] -= 1
    world.stopped &= ~1
    changes.resume(world)


def _reset(world: World, s: Setting) -> None:
    world.left[RESET] -= 1
    guard.reset(world)
    world.stopped &= ~2
    world.reset_at = world.redis.sequence


def _decide(world: World, s: Setting, intent: int) -> None:
    """`Control.resolve_by_hand`: it sees the list, and knows its own orders."""
    entry = world.redis.entries[intent]
    assert entry is not None
    mine = [number for number in broker.rows(world) if world.orders[number - 1][0] == intent]
    outcome, number = (ACCEPTED, mine[0]) if mine else (NOT_PLACED, 0)
    ledger.resolve(world, s, intent, entry.fence, entry.attempt, outcome, number)


def _redis(world: World, s: Setting) -> Iterator[Step]:
    if not world.left[REDIS_DIES]:
        return
    if not (s.confirms and s.on(Rule.CONFIRMED)):
        yield Step("Redis writes to its disk", False, _sync, ())
    yield Step("Redis dies; another comes up, with what was remembered", True, _die, ())


def _sync(world: World, s: Setting) -> None:
    remember(world)


def _die(world: World, s: Setting) -> None:
    world.left[REDIS_DIES] -= 1
    forget(world)
    world.life += 1
    redis = world.redis
    queued = {one[1] for one in redis.queue}
    for intent in range(len(s.intents)):
        # What Redis no longer knows was never enqueued, until the strategy asks again.
        if intent not in queued and redis.entries[intent] is None and not redis.responses[intent]:
            world.sent[intent] = 0
    if not world.left[REDIS_DIES]:
        world.synced = b""


def _tick(world: World, s: Setting) -> None:
    tick(world)
    give_up_late(world, s)
