"""
What a worker does, one step at a time, and may be stopped between any two of them for as long as one likes: a frozen
process is one that takes no step while time passes. (worker/engine.py, settler.py, sender.py, resolver.py, upkeep.py)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.model import broker, lanes, ledger
from tests.model.promises import judge_ack, judge_write, publish, stop, tell
from tests.model.rules import Rule
from tests.model.setting import (
    BAD_READING,
    CRASH,
    FREEZE,
    LOST,
    NOT_SENT_FAULT,
    REDELIVERY,
    REDIS_DIES,
    Setting,
)
from tests.model.world import (
    ANSWERED,
    ARRIVE_FOR,
    BURYING,
    CHECKED,
    CLAIMED,
    DENIED,
    DONE,
    EXPIRED,
    GRANTED,
    IN_DOUBT,
    IN_FLIGHT,
    LAUNCHED,
    NAMES,
    NEVER,
    NOT_SENT,
    PARKED,
    SEND_FOR,
    SENT,
    SETTLED,
    UNPUBLISHED,
    UNSURE,
    Hand,
    Worker,
    World,
    remember,
)


class Step(NamedTuple):
    text: str
    #: Something goes wrong, or a person does what nobody may wait for.
    is_fault: bool
    do: Callable[..., None]
    #: After world and setting.
    with_: tuple[Any, ...]


def steps(world: World, s: Setting) -> Iterator[Step]:
    yield from _resolvers(world, s)
    for number, worker in enumerate(world.workers):
        name = f"worker {number + 1}"
        if worker.life == world.life or not s.on(Rule.INCARNATION):
            yield from _with_redis(world, s, number, worker, name)
        else:
            yield Step(f"{name} registers with another server than before", False, _register, (number,))
        yield from _with_broker(world, s, number, worker, name)
        if world.left[CRASH] and (worker.hands or worker.inbox):
            yield Step(f"{name} is killed, and starts again", True, _crash, (number,))


def _with_redis(world: World, s: Setting, number: int, worker: Worker, name: str) -> Iterator[Step]:
    yield from _queue(world, s, number, worker, name)
    lost = world.left[LOST] > 0
    for place, hand in enumerate(worker.hands):
        what = s.intents[hand.intent].name
        for text, do, asks in _calls(s, hand):
            yield Step(f"{name} {text} {what}", False, do, (number, place, False))
            if lost and asks:
                yield Step(f"{name} {text} {what}; the reply is lost", True, do, (number, place, True))
    yield from _upkeep(world, s, number, name)


def _calls(s: Setting, hand: Hand) -> Iterator[tuple[str, Callable[..., None], bool]]:
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
            yield f"dead-letters entry {hand.entry} of", _bury, False
        case _ if hand.phase == DONE:
            yield f"acknowledges entry {hand.entry} of", _ack, False


# The queue: take.lua, then claim.lua.


def _queue(world: World, s: Setting, number: int, worker: Worker, name: str) -> Iterator[Step]:
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
    _confirm(world, s)
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
        token = ledger.new_token(world, intent) if s.on(Rule.OWN_TOKEN) else number + 1
        delivery[3] = token
    answer = ledger.claim(world, s, intent, token, content, entry, leave)
    if is_lost:
        world.left[LOST] -= 1
        return
    worker.inbox.pop(place)
    hand = Hand(intent, token, DONE, content, entry=entry)
    if answer == ledger.IS_LAUNCHED:
        hand.phase, hand.attempt, hand.deadline = LAUNCHED, 1, _deadline(world, s, intent)
    elif answer == ledger.IS_GRANTED:
        hand.phase = GRANTED
        _look_at_gates(world, s, hand)
    elif answer == ledger.IS_CONFLICT:
        hand.phase = BURYING
    worker.hands.append(hand)
    if hand.phase == DONE:
        judge_ack(world, s, intent, content)
        _end(world, number, len(worker.hands) - 1)
    _confirm(world, s)


def _misread(world: World, s: Setting, number: int, place: int) -> None:
    worker = world.workers[number]
    entry, intent, content, _ = worker.inbox.pop(place)
    worker.hands.append(Hand(intent, 0, BURYING, content, outcome=DENIED, entry=entry))


def _bury(world: World, s: Setting, number: int, place: int, _: bool) -> None:
    hand = world.workers[number].hands[place]
    ledger.bury(world, s, hand.intent, hand.content, hand.entry, conflict=hand.outcome != DENIED)
    hand.phase = DONE
    _confirm(world, s)


def _ack(world: World, s: Setting, number: int, place: int, _: bool) -> None:
    _acknowledge(world, number, place)
    _confirm(world, s)


# Launching and sending.


def _deadline(world: World, s: Setting, intent: int) -> int:
    return min(SEND_FOR, world.fresh[intent]) if s.on(Rule.DEADLINE_IN_EXPIRY) else SEND_FOR


def _launch(world: World, s: Setting, number: int, place: int, is_lost: bool) -> None:
    hand = world.workers[number].hands[place]
    answer = ledger.launch(world, s, hand.intent, hand.token, hand.attempt + 1)
    _launched(world, s, number, place, answer, is_lost)


def _cancel(world: World, s: Setting, number: int, place: int, is_lost: bool) -> None:
    hand = world.workers[number].hands[place]
    answer = ledger.cancel(world, s, hand.intent, hand.token, hand.attempt + 1)
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
        hand.deadline = _deadline(world, s, hand.intent) if s.on(Rule.DEADLINE_FROM_CALL) else NEVER
    elif answer in (DENIED, EXPIRED):
        hand.phase, hand.outcome = ANSWERED, answer
    elif answer == ledger.WAITING and not hand.attempt:
        _end(world, number, place)
    elif answer == ledger.STALE:
        # Not acknowledged: it comes again.
        worker.hands.pop(place)
    _confirm(world, s)


def _end(world: World, number: int, place: int) -> None:
    """It is the ledger's from here on; its queue entry, if it has one, is to be acknowledged."""
    worker = world.workers[number]
    hand = worker.hands[place]
    worker.hands[place] = Hand(hand.intent, 0, DONE, hand.content, entry=hand.entry)
    if not hand.entry or not any(world.left[one] for one in (CRASH, REDELIVERY, REDIS_DIES)):
        # When exactly it is acknowledged, nobody can tell any more.
        _acknowledge(world, number, place)


def _acknowledge(world: World, number: int, place: int) -> None:
    hand = world.workers[number].hands.pop(place)
    # XACK: nothing happens to an entry that, as far as Redis knows, nobody has taken.
    world.redis.queue = [one for one in world.redis.queue if one[0] != hand.entry or not one[3]]


def _with_broker(world: World, s: Setting, number: int, worker: Worker, name: str) -> Iterator[Step]:
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
        ledger.finish(world, s, hand.intent, entry, hand.outcome, hand.number, give, publishes=False)
        done = True
    else:
        done = ledger.settle_answer(
            world, s, hand.intent, hand.token, hand.attempt, hand.outcome, hand.number, give
        )
    tokens = [ledger.grant(world, one) for one in give]
    if is_lost:
        world.left[LOST] -= 1
        return
    _confirm(world, s)
    if apart:
        hand.phase = UNPUBLISHED
    elif done:
        _end(world, number, place)
    else:
        worker.hands.pop(place)
    _receive(world, s, worker, give, tokens)


def _publish(world: World, s: Setting, number: int, place: int, _: bool) -> None:
    worker = world.workers[number]
    hand = worker.hands[place]
    publish(world, s, hand.intent, hand.outcome, hand.number)
    _end(world, number, place)


def _receive(world: World, s: Setting, worker: Worker, give: list[int], tokens: list[int]) -> None:
    for intent, token in zip(give, tokens, strict=True):
        entry = world.redis.entries[intent]
        assert entry is not None
        hand = Hand(intent, token, GRANTED, entry.content)
        _look_at_gates(world, s, hand)
        worker.hands.append(hand)


def _look_at_gates(world: World, s: Setting, hand: Hand) -> None:
    """What is done when it is not done in the launch itself: as early as can be."""
    if not s.on(Rule.GATE_IN_LAUNCH) and (world.redis.halted or world.redis.tripped):
        hand.phase, hand.outcome = ANSWERED, DENIED
    if not s.on(Rule.EXPIRY_IN_LAUNCH) and not world.fresh[hand.intent]:
        hand.phase, hand.outcome = ANSWERED, EXPIRED


def _note_doubt(world: World, s: Setting, number: int, place: int, is_lost: bool) -> None:
    worker = world.workers[number]
    hand = worker.hands[place]
    hand.phase, hand.reply = UNSURE, 0
    done = ledger.settle_doubt(world, s, hand.intent, hand.token, hand.attempt)
    if is_lost:
        world.left[LOST] -= 1
        return
    _confirm(world, s)
    if done:
        _end(world, number, place)
    else:
        worker.hands.pop(place)


# Upkeep: sweep.lua, weed.lua; and after a change of the server.


def _upkeep(world: World, s: Setting, number: int, name: str) -> Iterator[Step]:
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
    for entry, intent in redis.lanes:
        if s.on(Rule.LEAVE_LANES) and _is_weed(world, entry, intent):
            yield Step(f"{name} weeds entry {entry} out of its lane", False, _weed, (entry, intent))
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
    _confirm(world, s)


def _sweep(world: World, s: Setting, number: int, intent: int, is_frozen: bool) -> None:
    world.left[FREEZE] -= is_frozen
    entry = world.redis.entries[intent]
    assert entry is not None
    if entry.state == IN_FLIGHT:
        ledger.to_doubt(world, s, intent, entry, counts=True)
    else:
        _receive(world, s, world.workers[number], [intent], [ledger.grant(world, intent)])
    _confirm(world, s)


def _grant_ready(world: World, s: Setting, number: int, intent: int) -> None:
    world.redis.ready &= ~s.lane_bit(intent)
    give: list[int] = []
    lanes.advance(world.redis, s, intent, give)
    _receive(world, s, world.workers[number], give, [ledger.grant(world, one) for one in give])
    _confirm(world, s)


def _register(world: World, s: Setting, number: int) -> None:
    ledger.register(world, s)
    world.workers[number].life = world.life
    _confirm(world, s)


def _reconcile(world: World, s: Setting) -> None:
    ledger.reconcile(world, s, broker.listed_intents(world))
    _confirm(world, s)


# The resolver. Every worker has one; none knows of the others, so here they are beside the workers.


def _resolvers(world: World, s: Setting) -> Iterator[Step]:
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
    _confirm(world, s)


# What may happen to a process.


def _crash(world: World, s: Setting, number: int) -> None:
    world.left[CRASH] -= 1
    world.workers[number] = Worker(life=world.life)


def _confirm(world: World, s: Setting) -> None:
    """The call is answered: what it wrote will survive, and what it read too."""
    if not s.forgets:
        return
    if s.confirms and s.on(Rule.CONFIRMED):
        remember(world)
        tell(world, s)
    if world.redis.halted:
        stop(world, 1)
