"""From the launch to the settlement: worker/engine.py, sender.py and settler.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.model import cancels, intake, ledger, lib
from tests.model.promises import judge_write, publish
from tests.model.rules import Rule
from tests.model.setting import (
    LOST,
    NOT_SENT_FAULT,
    Setting,
)
from tests.model.step import Step, confirm, end, receive, send_for
from tests.model.world import (
    ANSWERED,
    ARRIVE_FOR,
    BURYING,
    CHECKED,
    DENIED,
    DONE,
    EXPIRED,
    GRANTED,
    LAUNCHED,
    NAMES,
    NEVER,
    NOT_SENT,
    SEND_FOR,
    SENT,
    UNPUBLISHED,
    UNSURE,
    Hand,
    Worker,
    World,
)


def calls(s: Setting, hand: Hand) -> Iterator[tuple[str, Callable[..., None], bool]]:
    """What it asks Redis next, and whether a lost reply matters."""
    match hand.phase:
        case _ if hand.phase == GRANTED and s.is_cancel(hand.intent):
            yield "asks what may be done with", _cancel, True
        case _ if hand.phase == GRANTED:
            yield "launches", _launch, True
        case _ if hand.phase == SENT:
            if hand.reply:
                yield f"settles with the broker's answer, {NAMES[hand.reply // 16]},", _settle, True
            yield "got no answer, and notes the doubt about", _note_doubt, True
        case _ if hand.phase == ANSWERED:
            yield f"settles as {NAMES[hand.outcome]}", _settle, True
        case _ if hand.phase == UNSURE:
            yield "notes the doubt, again, about", _note_doubt, True
        case _ if hand.phase == UNPUBLISHED:
            yield "publishes the response to", _publish, False
        case _ if hand.phase == BURYING:
            yield f"dead-letters entry {hand.entry} of", intake.bury, False
        case _ if hand.phase == DONE:
            yield f"acknowledges entry {hand.entry} of", intake.ack, False


def _launch(world: World, s: Setting, number: int, place: int, is_lost: bool) -> None:
    hand = world.workers[number].hands[place]
    answer = ledger.launch(world, s, hand.intent, hand.token, hand.attempt + 1)
    _launched(world, s, number, place, answer, is_lost)


def _cancel(world: World, s: Setting, number: int, place: int, is_lost: bool) -> None:
    hand = world.workers[number].hands[place]
    answer = cancels.cancel(world, s, hand.intent, hand.token, hand.attempt + 1)
    if answer == ledger.GO:
        target = world.redis.entries[s.intents[hand.intent].target or 0]
        assert target is not None
        hand.target = target.number
    _launched(world, s, number, place, answer, is_lost)


def _launched(world: World, s: Setting, number: int, place: int, answer: int, is_lost: bool) -> None:
    worker = world.workers[number]
    hand = worker.hands[place]
    if is_lost:
        world.left[LOST] -= 1
        return
    if answer == ledger.GO:
        hand.phase = LAUNCHED
        hand.attempt += 1
        hand.deadline = send_for(world, s, hand.intent) if s.on(Rule.DEADLINE_FROM_CALL) else NEVER
    elif answer in (DENIED, EXPIRED):
        hand.phase, hand.outcome = ANSWERED, answer
    elif answer == ledger.WAITING and not hand.attempt:
        end(world, number, place)
    elif answer == ledger.STALE:
        # Not acknowledged: it comes again.
        worker.hands.pop(place)
    confirm(world, s)


def steps(world: World, s: Setting, number: int, worker: Worker, name: str) -> Iterator[Step]:
    for place, hand in enumerate(worker.hands):
        what = s.intents[hand.intent].name
        at = (number, place)
        if hand.phase == LAUNCHED:
            if hand.deadline == NEVER:
                yield Step(f"{name} reads that {what} is launched", False, _hear_launch, at)
            elif s.on(Rule.KERNEL_TIMER):
                yield Step(f"{name} sends {what}", False, _send, at)
            else:
                yield Step(f"{name} sees that there is time to send {what}", False, _check, at)
            if world.left[NOT_SENT_FAULT]:
                yield Step(f"{name} cannot connect to send {what}", True, _fail_to_send, at)
        elif hand.phase == CHECKED:
            yield Step(f"{name} sends {what}", False, _send, at)


def _hear_launch(world: World, s: Setting, number: int, place: int) -> None:
    world.workers[number].hands[place].deadline = SEND_FOR


def _check(world: World, s: Setting, number: int, place: int) -> None:
    world.workers[number].hands[place].phase = CHECKED


def _send(world: World, s: Setting, number: int, place: int) -> None:
    hand = world.workers[number].hands[place]
    hand.phase = SENT
    if not s.is_cancel(hand.intent):
        judge_write(world, s, hand.intent)
    life = ARRIVE_FOR if s.on(Rule.SOCKET_TIMEOUT) else NEVER
    world.wires.append([hand.intent, hand.token, hand.attempt, life, hand.target])


def _fail_to_send(world: World, s: Setting, number: int, place: int) -> None:
    world.left[NOT_SENT_FAULT] -= 1
    _not_sent(s, world.workers[number].hands[place])


def give_up_late(world: World, s: Setting) -> None:
    """Who wakes up after the deadline sends nothing."""
    for worker in world.workers:
        for hand in worker.hands:
            if hand.phase == LAUNCHED and not hand.deadline:
                _not_sent(s, hand)


def _not_sent(s: Setting, hand: Hand) -> None:
    """It provably did not leave: once more through launch, or that is the answer."""
    if hand.retries >= s.retries:
        hand.phase, hand.outcome = ANSWERED, NOT_SENT
    elif s.on(Rule.RELAUNCH):
        hand.retries += 1
        hand.phase = GRANTED
    else:
        hand.retries += 1
        hand.deadline = SEND_FOR


# Settling.


def _settle(world: World, s: Setting, number: int, place: int, is_lost: bool) -> None:
    worker = world.workers[number]
    hand = worker.hands[place]
    if hand.phase == SENT:
        # Reading the answer is nobody else's business, so it is no step of its own; nor is giving it up.
        hand.phase, hand.outcome, hand.number, hand.reply = ANSWERED, hand.reply // 16, hand.reply % 16, 0
    give: list[int] = []
    entry = world.redis.entries[hand.intent]
    apart = not s.on(Rule.SETTLE_PUBLISHES) and entry is not None and entry.token == hand.token
    if apart:
        assert entry is not None
        lib.finish(world, s, hand.intent, entry, hand.outcome, hand.number, give, publishes=False)
        done = True
    else:
        done = ledger.settle_answer(
            world, s, hand.intent, hand.token, hand.attempt, hand.outcome, hand.number, give
        )
    tokens = [lib.grant(world, one) for one in give]
    if is_lost:
        world.left[LOST] -= 1
        return
    confirm(world, s)
    if apart:
        hand.phase = UNPUBLISHED
    elif done:
        end(world, number, place)
    else:
        worker.hands.pop(place)
    receive(world, s, worker, give, tokens)


def _publish(world: World, s: Setting, number: int, place: int, _: bool) -> None:
    worker = world.workers[number]
    hand = worker.hands[place]
    publish(world, s, hand.intent, hand.outcome, hand.number)
    end(world, number, place)


def _note_doubt(world: World, s: Setting, number: int, place: int, is_lost: bool) -> None:
    worker = world.workers[number]
    hand = worker.hands[place]
    hand.phase, hand.reply = UNSURE, 0
    done = ledger.settle_doubt(world, s, hand.intent, hand.token, hand.attempt)
    if is_lost:
        world.left[LOST] -= 1
        return
    confirm(world, s)
    if done:
        end(world, number, place)
    else:
        worker.hands.pop(place)
