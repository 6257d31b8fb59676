"""What goes on beside the orders: sweep.lua, weed.lua, and the resolvers (worker/upkeep.py, resolver.py)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import broker, changes, lanes, ledger, lib
from tests.model.rules import Rule
from tests.model.setting import (
    BAD_READING,
    FREEZE,
    Setting,
)
from tests.model.step import Step, confirm, receive
from tests.model.world import (
    CLAIMED,
    IN_DOUBT,
    IN_FLIGHT,
    NAMES,
    PARKED,
    SETTLED,
    World,
)


def steps(world: World, s: Setting, number: int, name: str) -> Iterator[Step]:
    redis = world.redis
    if s.on(Rule.SWEEP):
        for intent, entry in enumerate(redis.entries):
            if entry is None or entry.state not in (CLAIMED, PARKED, IN_FLIGHT):
                continue
            is_stale = entry.state == PARKED and not world.fresh[intent]
            if entry.lease and not is_stale:
                continue
            what = s.intents[intent].name
            if not _is_worked_on(world, intent, entry.token):
                yield Step(f"{name} sweeps {what}", False, _sweep, (number, intent, False))
            elif world.left[FREEZE]:
                text = f"{name} sweeps {what}, whose worker has been silent for longer than its lease"
                yield Step(text, True, _sweep, (number, intent, True))
    for intent in range(len(redis.entries)):
        if redis.ready and s.lane_bit(intent) == 1 << intent and redis.ready >> intent & 1:
            text = f"{name} asks for the head of lane {s.lane_of(intent)}"
            yield Step(text, False, _grant_ready, (number, intent))
    for queued, intent in redis.lanes:
        if s.on(Rule.LEAVE_LANES) and _is_weed(world, queued, intent):
            yield Step(f"{name} weeds entry {queued} out of its lane", False, _weed, (queued, intent))
    if redis.unsure == 0 and s.on(Rule.INCARNATION):
        yield Step(f"{name} compares the broker's list with the ledger", False, _reconcile, ())


def _is_worked_on(world: World, intent: int, token: int) -> bool:
    """Whether a worker lives that renews the lease, unless it is frozen."""
    return any(
        any((one.intent, one.token) == (intent, token) for one in worker.hands)
        or any((one[1], one[3]) == (intent, token) for one in worker.inbox)
        for worker in world.workers
    )


def _is_weed(world: World, number: int, intent: int) -> bool:
    entry = world.redis.entries[intent]
    held = entry is not None and entry.state != SETTLED and entry.member == number
    return not held and not any(one[0] == number and one[3] for one in world.redis.queue)


def _weed(world: World, s: Setting, number: int, intent: int) -> None:
    lanes.leave(world.redis, s, intent, number, None)
    confirm(world, s)


def _sweep(world: World, s: Setting, number: int, intent: int, is_frozen: bool) -> None:
    world.left[FREEZE] -= is_frozen
    entry = world.redis.entries[intent]
    assert entry is not None
    if entry.state == IN_FLIGHT:
        lib.to_doubt(world, s, intent, entry, counts=True)
    else:
        receive(world, s, world.workers[number], [intent], [lib.grant(world, intent)])
    confirm(world, s)


def _grant_ready(world: World, s: Setting, number: int, intent: int) -> None:
    world.redis.ready &= ~s.lane_bit(intent)
    give: list[int] = []
    lanes.advance(world.redis, s, intent, give)
    receive(world, s, world.workers[number], give, [lib.grant(world, one) for one in give])
    confirm(world, s)


def register(world: World, s: Setting, number: int) -> None:
    changes.register(world, s)
    world.workers[number].life = world.life
    confirm(world, s)


def _reconcile(world: World, s: Setting) -> None:
    changes.reconcile(world, s, broker.rows(world))
    confirm(world, s)


# Every worker has a resolver; none knows of the others, so here they are beside the workers.


def resolvers(world: World, s: Setting) -> Iterator[Step]:
    for by in range(s.resolvers):
        name = "the resolver" if s.resolvers == 1 else f"resolver {by + 1}"
        decided = {one.intent for one in world.watches if one.outcome and one.by == by}
        for intent, entry in enumerate(world.redis.entries):
            if entry is None or entry.state != IN_DOUBT or intent in decided:
                continue
            text = f"{name} reads the broker's list for {s.intents[intent].name}"
            yield Step(text, False, broker.look, (by, intent, False))
            if world.left[BAD_READING] and s.shows_ids and not s.is_cancel(intent):
                yield Step(f"{text}, and a row is missing", True, broker.look, (by, intent, True))
    for place, watch in enumerate(world.watches):
        if watch.outcome:
            text = f"{name} resolves {s.intents[watch.intent].name} as {NAMES[watch.outcome]}"
            yield Step(text, False, _resolve, (place,))


def _resolve(world: World, s: Setting, place: int) -> None:
    watch = world.watches.pop(place)
    ledger.resolve(world, s, watch.intent, watch.fence, watch.attempt, watch.outcome, watch.number)
    confirm(world, s)
