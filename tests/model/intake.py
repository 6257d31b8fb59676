"""From the queue to the claim: worker/transport/take.lua and worker/intake.py, then claim.lua; and the acknowledgement."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import lanes, ledger, lib
from tests.model.promises import judge_ack
from tests.model.rules import Rule
from tests.model.setting import (
    LOST,
    REDELIVERY,
    Setting,
)
from tests.model.step import Step, acknowledge, confirm, end, look_at_gates, send_for
from tests.model.world import (
    BURYING,
    DENIED,
    DONE,
    GRANTED,
    LAUNCHED,
    Hand,
    Worker,
    World,
)


def steps(world: World, s: Setting, number: int, worker: Worker, name: str) -> Iterator[Step]:
    seen: set[bool] = set()
    for place, (entry, intent, _, times) in enumerate(world.redis.queue):
        what = f"entry {entry}, {s.intents[intent].name}"
        if not times:
            # In the order of the stream; CANCELs have one of their own.
            if s.is_cancel(intent) not in seen:
                yield Step(f"{name} takes {what}", False, _take, (number, place))
            seen.add(s.is_cancel(intent))
        elif not _is_held(world, entry):
            yield Step(f"{name} takes over {what}", False, _take, (number, place))
        elif world.left[REDELIVERY]:
            yield Step(f"{name} is given {what}, once more", True, _take_again, (number, place))
    for place, (entry, intent, _, _) in enumerate(worker.inbox):
        what = f"{s.intents[intent].name} by entry {entry}"
        # A launch in the same step is what a launch right after it is, unless the reply is lost.
        yield Step(f"{name} claims {what}", False, _claim, (number, place, False, False))
        if world.left[LOST]:
            text = f"{name} claims and launches {what}; the reply is lost"
            yield Step(text, True, _claim, (number, place, True, True))
        if s.intents[intent].unreadable:
            yield Step(f"{name} finds {what} unreadable", True, _misread, (number, place))


def _is_held(world: World, entry: int) -> bool:
    return any(
        any(one[0] == entry for one in worker.inbox) or any(one.entry == entry for one in worker.hands)
        for worker in world.workers
    )


def _take(world: World, s: Setting, number: int, place: int) -> None:
    redis = world.redis
    queued = redis.queue[place]
    entry, intent, content, _ = queued
    queued[3] = 1
    if not s.is_cancel(intent) and s.on(Rule.TAKE_REGISTERS):
        lanes.register(redis, entry, intent)
    if not s.on(Rule.ACK_LAST):
        redis.queue.pop(place)
    worker = world.workers[number]
    worker.inbox.append([entry, intent, content, 0])
    worker.inbox.sort()
    confirm(world, s)
    if s.claims_at_once:
        _claim(world, s, number, 0, False, False)


def _take_again(world: World, s: Setting, number: int, place: int) -> None:
    world.left[REDELIVERY] -= 1
    _take(world, s, number, place)


def _claim(world: World, s: Setting, number: int, place: int, leave: bool, is_lost: bool) -> None:
    worker = world.workers[number]
    delivery = worker.inbox[place]
    entry, intent, content, token = delivery
    if not token:
        token = lib.new_token(world, intent) if s.on(Rule.OWN_TOKEN) else number + 1
        delivery[3] = token
    answer = ledger.claim(world, s, intent, token, content, entry, leave)
    if is_lost:
        world.left[LOST] -= 1
        return
    worker.inbox.pop(place)
    hand = Hand(intent, token, DONE, content, entry=entry)
    if answer == ledger.IS_LAUNCHED:
        hand.phase, hand.attempt, hand.deadline = LAUNCHED, 1, send_for(world, s, intent)
    elif answer == ledger.IS_GRANTED:
        hand.phase = GRANTED
        look_at_gates(world, s, hand)
    elif answer == ledger.IS_CONFLICT:
        hand.phase = BURYING
    worker.hands.append(hand)
    if hand.phase == DONE:
        judge_ack(world, s, intent, content)
        end(world, number, len(worker.hands) - 1)
    confirm(world, s)


def _misread(world: World, s: Setting, number: int, place: int) -> None:
    worker = world.workers[number]
    entry, intent, content, _ = worker.inbox.pop(place)
    worker.hands.append(Hand(intent, 0, BURYING, content, outcome=DENIED, entry=entry))


def bury(world: World, s: Setting, number: int, place: int, _: bool) -> None:
    hand = world.workers[number].hands[place]
    ledger.bury(world, s, hand.intent, hand.content, hand.entry, conflict=hand.outcome != DENIED)
    hand.phase = DONE
    confirm(world, s)


def ack(world: World, s: Setting, number: int, place: int, _: bool) -> None:
    acknowledge(world, number, place)
    confirm(world, s)
