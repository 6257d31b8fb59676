"""What P1 to P8 ask of each step, and P3 of each state: what the search holds the protocol to."""

from __future__ import annotations

from tests.model import lanes
from tests.model.setting import Setting
from tests.model.world import ACCEPTED, BY_HAND, IN_DOUBT, IN_FLIGHT, World


def _break(world: World, s: Setting, promise: str, how: str) -> None:
    if promise in s.promises and not world.broken:
        world.broken = f"{promise}: {how}"


def judge_launch(world: World, s: Setting, intent: int) -> None:
    """The moment in which a launch is noted."""
    name = s.intents[intent].name
    if world.stopped:
        _break(world, s, "P5", f"{name} is launched after a committed stop")
    if not world.fresh[intent]:
        _break(world, s, "P7", f"{name} is launched when it is stale")
    if lanes.is_held(world.redis, s, intent):
        _break(world, s, "P6", f"{name} is launched while a CANCEL of its lane is open")
    for other, entry in enumerate(world.redis.entries):
        if other == intent or s.is_cancel(other) or s.lane_of(other) != s.lane_of(intent):
            continue
        if entry is not None and entry.state in (IN_FLIGHT, IN_DOUBT):
            _break(world, s, "P6", f"{name} is launched beside {s.intents[other].name} of the same lane")
        is_earlier = 0 < world.first[other] < world.first[intent]
        if is_earlier and not world.redis.responses[other]:
            _break(world, s, "P6", f"{name} is launched before {s.intents[other].name}, which came first")


def judge_write(world: World, s: Setting, intent: int) -> None:
    """The moment in which the request leaves."""
    if not world.fresh[intent]:
        _break(world, s, "P7", f"{s.intents[intent].name} leaves when it is stale")


def judge_arrival(world: World, s: Setting, intent: int) -> None:
    """The broker has just taken an order or the request of a CANCEL."""
    name = s.intents[intent].name
    if s.is_cancel(intent):
        if _answer(world, intent) not in (0, ACCEPTED):
            _break(world, s, "P4", f"the broker took {name}, which was answered otherwise")
        return
    if sum(one[0] == intent for one in world.orders) > 1:
        _break(world, s, "P1", f"the broker holds two orders for {name}")
    if _answer(world, intent) not in (0, ACCEPTED):
        _break(world, s, "P4", f"the broker holds an order for {name}, which was answered otherwise")


def publish(world: World, s: Setting, intent: int, outcome: int, number: int) -> None:
    """A final response goes into the stream."""
    redis = world.redis
    name = s.intents[intent].name
    if redis.responses[intent]:
        _break(world, s, "P2", f"{name} gets a second answer")
    redis.responses[intent] = outcome * 16 + number
    if s.is_cancel(intent):
        taken = world.cancels_taken >> intent & 1
        # One that came to an order cancelled already may say that it is.
        if taken and outcome != ACCEPTED:
            _break(world, s, "P4", f"{name} is answered as not taken, and the broker took it")
        if outcome == ACCEPTED and not taken and world.cancels_timely >> intent & 1:
            _break(world, s, "P4", f"{name} is answered ACCEPTED, and the broker never took it")
    elif outcome == ACCEPTED:
        if not number or number > len(world.orders) or world.orders[number - 1][0] != intent:
            _break(world, s, "P4", f"{name} is answered ACCEPTED with an order that is not its own")
    elif any(one[0] == intent for one in world.orders):
        _break(world, s, "P4", f"{name} is answered as no order, and the broker holds it")


def tell(world: World, s: Setting) -> None:
    """What Redis holds now was confirmed: an answer that somebody has acted upon never changes."""
    for intent, answer in enumerate(world.redis.responses):
        if world.told and answer:
            if world.told[intent] not in (0, answer):
                _break(world, s, "P2", f"the answer to {s.intents[intent].name} changed")
            world.told[intent] = answer


def stop(world: World, how: int) -> None:
    """A halt (1) or a trip (2) is committed."""
    world.stopped |= how


def trip(world: World, s: Setting, failures: list[int]) -> None:
    stop(world, 2)
    if any(one <= world.reset_at for one in failures):
        _break(world, s, "P5", "what was launched before a reset closes the route after it")


def judge_ack(world: World, s: Setting, intent: int, content: int) -> None:
    """A queue entry is acknowledged as a replay of what the ledger holds."""
    entry = world.redis.entries[intent]
    if entry is not None and entry.content != content:
        _break(world, s, "P8", f"other content under the id {s.intents[intent].name} passes for a replay")


def is_answered(world: World, s: Setting) -> bool:
    """Every queue entry has ended, and every intent has its answer or lies with its bytes in the dead letters."""
    redis = world.redis
    if redis.queue:
        return False
    answered = all(
        not times or redis.responses[one] or redis.buried >> one & 1 for one, times in enumerate(world.sent)
    )
    return answered and not any(
        one is not None and one.state in (IN_FLIGHT, IN_DOUBT) for one in redis.entries
    )


def _answer(world: World, intent: int) -> int:
    answer = world.redis.responses[intent] or (world.told[intent] if world.told else 0)
    return answer // 16


def is_ours(order: list[int]) -> bool:
    return order[0] != BY_HAND
