"""
What a worker does, one step at a time, and may be stopped between any two of them for as long as one likes: a frozen
process is one that takes no step while time passes.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import intake, ledger, sending, upkeep
from tests.model.rules import Rule
from tests.model.setting import (
    CRASH,
    DRAIN,
    LOST,
    Setting,
)
from tests.model.step import Step, confirm
from tests.model.world import (
    ANSWERED,
    GRANTED,
    NOT_SENT,
    Worker,
    World,
)


def steps(world: World, s: Setting) -> Iterator[Step]:
    yield from upkeep.resolvers(world, s)
    for number, worker in enumerate(world.workers):
        name = f"worker {number + 1}"
        if worker.life == world.life or not s.on(Rule.INCARNATION):
            yield from _with_redis(world, s, number, worker, name)
        else:
            yield Step(f"{name} registers with another server than before", False, upkeep.register, (number,))
        yield from sending.steps(world, s, number, worker, name)
        if world.left[CRASH] and (worker.hands or worker.inbox):
            yield Step(f"{name} is killed, and starts again", True, _crash, (number,))
        if world.left[DRAIN] and worker.hands and worker.life == world.life:
            yield Step(f"{name} drains", True, _drain, (number,))


def _with_redis(world: World, s: Setting, number: int, worker: Worker, name: str) -> Iterator[Step]:
    yield from intake.steps(world, s, number, worker, name)
    lost = world.left[LOST] > 0
    for place, hand in enumerate(worker.hands):
        what = s.intents[hand.intent].name
        for text, do, asks in sending.calls(s, hand):
            yield Step(f"{name} {text} {what}", False, do, (number, place, False))
            if lost and asks:
                yield Step(f"{name} {text} {what}; the reply is lost", True, do, (number, place, True))
    yield from upkeep.steps(world, s, number, name)


def _crash(world: World, s: Setting, number: int) -> None:
    world.left[CRASH] -= 1
    world.workers[number] = Worker(life=world.life)


def _drain(world: World, s: Setting, number: int) -> None:
    """Give back what was not launched, and take no more; what is in flight is still settled."""
    world.left[DRAIN] -= 1
    worker = world.workers[number]
    worker.inbox = []
    for hand in worker.hands:
        if hand.phase == GRANTED and hand.attempt:
            hand.phase, hand.outcome = ANSWERED, NOT_SENT
        elif hand.phase == GRANTED:
            ledger.release(world, hand.intent, hand.token)
    worker.hands = [one for one in worker.hands if one.phase != GRANTED]
    confirm(world, s)
