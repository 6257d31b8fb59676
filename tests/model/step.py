"""One step of the model, and what several steps of a worker share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.model.promises import stop, tell
from tests.model.rules import Rule
from tests.model.setting import (
    CRASH,
    REDELIVERY,
    REDIS_DIES,
    Setting,
)
from tests.model.world import (
    ANSWERED,
    DENIED,
    DONE,
    EXPIRED,
    GRANTED,
    SEND_FOR,
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


def confirm(world: World, s: Setting) -> None:
    """The call is answered: what it wrote will survive, and what it read too."""
    if not s.forgets:
        return
    if s.confirms and s.on(Rule.CONFIRMED):
        remember(world)
        tell(world, s)
    if world.redis.halted:
        stop(world, 1)


def end(world: World, number: int, place: int) -> None:
    """It is the ledger's from here on; its queue entry, if it has one, is to be acknowledged."""
    worker = world.workers[number]
    hand = worker.hands[place]
    worker.hands[place] = Hand(hand.intent, 0, DONE, hand.content, entry=hand.entry)
    if not hand.entry or not any(world.left[one] for one in (CRASH, REDELIVERY, REDIS_DIES)):
        # When exactly it is acknowledged, nobody can tell any more.
        acknowledge(world, number, place)


def acknowledge(world: World, number: int, place: int) -> None:
    hand = world.workers[number].hands.pop(place)
    # XACK: nothing happens to an entry that, as far as Redis knows, nobody has taken.
    world.redis.queue = [one for one in world.redis.queue if one[0] != hand.entry or not one[3]]


def receive(world: World, s: Setting, worker: Worker, give: list[int], tokens: list[int]) -> None:
    for intent, token in zip(give, tokens, strict=True):
        entry = world.redis.entries[intent]
        assert entry is not None
        hand = Hand(intent, token, GRANTED, entry.content)
        look_at_gates(world, s, hand)
        worker.hands.append(hand)


def look_at_gates(world: World, s: Setting, hand: Hand) -> None:
    """What is done when it is not done in the launch itself: as early as can be."""
    if not s.on(Rule.GATE_IN_LAUNCH) and (world.redis.halted or world.redis.tripped):
        hand.phase, hand.outcome = ANSWERED, DENIED
    if not s.on(Rule.EXPIRY_IN_LAUNCH) and not world.fresh[hand.intent]:
        hand.phase, hand.outcome = ANSWERED, EXPIRED


def send_for(world: World, s: Setting, intent: int) -> int:
    return min(SEND_FOR, world.fresh[intent]) if s.on(Rule.DEADLINE_IN_EXPIRY) else SEND_FOR
