"""
The state of the model: one moment of Redis, two workers, the network, the broker and the people.

A state is packed into bytes for the set of those seen, and unpacked afresh for each step out of it. Times are counters
that run down with each tick.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Final

# States of a ledger entry.
CLAIMED, PARKED, IN_FLIGHT, IN_DOUBT, SETTLED, TOMBSTONE = range(1, 7)
# Where a worker is with an intent: `BURYING` and `DONE` are about the queue entry only.
GRANTED, LAUNCHED, CHECKED, SENT, ANSWERED, UNSURE, UNPUBLISHED, BURYING, DONE = range(1, 10)
# Outcomes.
ACCEPTED, REJECTED, NOT_PLACED, NOT_SENT, DENIED, EXPIRED = range(1, 7)
# An order at the broker.
WORKING, FILLED, CANCELLED = range(3)

#: Ticks: the send budget, the kernel's time-out, the broker's lag, the lease.
DEADLINE: Final = 1
KERNEL: Final = 1
LAG: Final = 1
LEASE: Final = 1
#: From a launch until the broker's list can prove an absence.
QUIET: Final = DEADLINE + KERNEL + LAG
#: Counters of what may still happen at the last moment of its time.
SEND_FOR: Final = DEADLINE + 1
ARRIVE_FOR: Final = KERNEL + 1
#: A timer that never ends, and an order by hand.
NEVER: Final = 99
BY_HAND: Final = 99

NAMES: Final = {
    ACCEPTED: "ACCEPTED",
    REJECTED: "REJECTED",
    NOT_PLACED: "NOT_PLACED",
    NOT_SENT: "NOT_SENT",
    DENIED: "DENIED",
    EXPIRED: "EXPIRED",
}


@dataclass(slots=True, eq=False)
class Entry:
    """A ledger entry: the hash ``intent:ID``."""

    state: int
    content: int = 0
    token: int = 0
    #: Its place in the lane: the number of a queue entry. 0: none.
    member: int = 0
    attempt: int = 0
    sequence: int = 0
    generation: int = 0
    #: Until absence can be proven; until somebody else looks at it; until it is forgotten.
    quiet: int = 0
    lease: int = 0
    kept: int = 0
    fence: int = 0
    #: The CANCEL that forbids it, and the one that waits for its end, each as its number + 1.
    cancel: int = 0
    waiting: int = 0
    outcome: int = 0
    #: The broker's number in the response.
    number: int = 0
    #: Orders that were owned when it was launched, and intents of which all had arrived by then, as bits.
    owned_before: int = 0
    launched_after: int = 0


@dataclass(slots=True, eq=False)
class Hand:
    """What one worker's memory holds of an intent."""

    intent: int
    token: int
    phase: int
    content: int = 0
    attempt: int = 0
    deadline: int = 0
    retries: int = 0
    outcome: int = 0
    number: int = 0
    #: The queue entry to acknowledge at the end; 0 where the ledger handed it over.
    entry: int = 0
    #: The broker's reply is there, unread: outcome * 16 + number.
    reply: int = 0
    #: For a CANCEL: the order to cancel.
    target: int = 0


@dataclass(slots=True, eq=False)
class Watch:
    """What a resolver remembers of a doubt: which resolver, and which doubt."""

    by: int
    intent: int
    fence: int
    attempt: int
    #: Until a reading of its own can tell of an absence.
    absent_in: int
    #: Readings in a row that tell of an absence.
    telling: int = 0
    outcome: int = 0
    number: int = 0


@dataclass(slots=True, eq=False)
class Worker:
    """A process. A crash empties it, and it starts again."""

    #: [queue entry, intent, content, token], each a delivery not claimed yet.
    inbox: list[list[int]] = field(default_factory=list)
    hands: list[Hand] = field(default_factory=list)
    #: The server's life that it has registered with.
    life: int = 0


@dataclass(slots=True, eq=False)
class Redis:
    """What is in Redis, and goes back together when it forgets."""

    entries: list[Entry | None]
    #: Final responses in the stream, as outcome * 16 + number; 0: none.
    responses: list[int]
    #: [number, intent, content, times handed over]
    queue: list[list[int]] = field(default_factory=list)
    #: [queue entry, intent], sorted.
    lanes: list[list[int]] = field(default_factory=list)
    #: Lanes with a parked head, as bits.
    ready: int = 0
    #: [target, CANCEL]
    cancelling: list[list[int]] = field(default_factory=list)
    halted: int = 0
    #: The guard, as in worker/ledger/lua/guard.lua.
    tripped: int = 0
    failures: list[int] = field(default_factory=list)
    last_success: int = 0
    generation: int = 0
    sequence: int = 0
    #: The last life that registered; ticks until the list can tell what was forgotten, -1: nothing to clear up.
    server: int = 0
    unsure: int = -1
    #: Intents from before the server changed; those whose launch may be forgotten; those whose id the list shows: bits.
    before: int = 0
    suspects: int = 0
    strays: int = 0
    buried: int = 0


@dataclass(slots=True, eq=False)
class World:
    redis: Redis
    workers: list[Worker]
    watches: list[Watch]
    #: [intent, ticks until it is listed, status, listed at all, ticks until its status is], in the order of acceptance.
    #: Their numbers are places, from 1.
    orders: list[list[int]]
    #: [intent, token, attempt, ticks left, order to cancel or 0], requests on their way.
    wires: list[list[int]]
    #: How often each intent was enqueued, its first entry's number, and ticks until it is stale.
    sent: list[int]
    first: list[int]
    fresh: list[int]
    #: Faults left, in the order of `tests.model.configurations.FAULTS`.
    left: list[int]
    #: Numbers of queue entries given so far.
    numbered: int = 0
    #: What everybody may rely on, whatever Redis says: bit 1 a halt, bit 2 a trip.
    stopped: int = 0
    #: The launch at which the guard was last reset.
    reset_at: int = 0
    #: CANCEL requests that the broker has taken, as bits.
    cancels_taken: int = 0
    #: Those that were launched at an order that still worked.
    cancels_timely: int = 0
    #: Answers that somebody may have acted upon, where Redis can forget them.
    told: list[int] = field(default_factory=list)
    session_over: int = 0
    #: This life of the server, and what it would remember after a crash.
    life: int = 0
    synced: bytes = b""
    broken: str = ""


def _getter(kind: type, start: int = 0) -> attrgetter[tuple[Any, ...]]:
    return attrgetter(*(one.name for one in fields(kind)[start:]))


_entry, _hand, _watch = _getter(Entry), _getter(Hand), _getter(Watch)
_redis_rest = _getter(Redis, 1)
_world_rest = _getter(World, 3)


def pack_redis(redis: Redis) -> tuple[Any, ...]:
    return ([None if one is None else _entry(one) for one in redis.entries], *_redis_rest(redis))


def unpack_redis(packed: tuple[Any, ...]) -> Redis:
    return Redis([None if one is None else Entry(*one) for one in packed[0]], *packed[1:])


def _pack_worker(worker: Worker) -> tuple[Any, ...]:
    return (worker.inbox, sorted(map(_hand, worker.hands)), worker.life)


def pack(world: World, *, named: bool = False) -> bytes:
    """The state as bytes; workers are interchangeable unless they are ``named``."""
    workers = [_pack_worker(one) for one in world.workers]
    if not named:
        workers.sort()
    world.wires.sort()
    # Version 2 of the format writes equal values alike; later ones note which objects are shared.
    watches = sorted(map(_watch, world.watches))
    return marshal.dumps((pack_redis(world.redis), workers, watches, *_world_rest(world)), 2)


def unpack(packed: bytes) -> World:
    redis, workers, watches, *rest = marshal.loads(packed)
    return World(
        unpack_redis(redis),
        [Worker(inbox, [Hand(*one) for one in hands], life) for inbox, hands, life in workers],
        [Watch(*one) for one in watches],
        *rest,
    )


def remember(world: World) -> None:
    """Redis's disk, or its replica, has all that was written."""
    world.synced = marshal.dumps(pack_redis(world.redis), 2)


def forget(world: World) -> None:
    """Redis comes back with what was remembered."""
    world.redis = unpack_redis(marshal.loads(world.synced))


def tick(world: World) -> None:
    """Time passes, for everybody alike: processes that are stopped too."""
    _tick_redis(world.redis)
    if world.synced:
        redis = unpack_redis(marshal.loads(world.synced))
        _tick_redis(redis)
        world.synced = marshal.dumps(pack_redis(redis), 2)
    for worker in world.workers:
        for hand in worker.hands:
            hand.deadline = _down(hand.deadline)
    for watch in world.watches:
        watch.absent_in = _down(watch.absent_in)
    for order in world.orders:
        order[1], order[4] = _down(order[1]), _down(order[4])
    for wire in world.wires:
        wire[3] = _down(wire[3])
    world.wires = [one for one in world.wires if one[3]]
    world.fresh = [_down(one) for one in world.fresh]


def is_timed(world: World) -> bool:
    """Whether a tick changes anything."""
    return any(0 < one < NEVER for one in _timers(world))


def _timers(world: World) -> Iterator[int]:
    for entry in world.redis.entries:
        if entry is not None:
            yield from (entry.quiet, entry.lease, entry.kept)
    yield world.redis.unsure
    for worker in world.workers:
        yield from (one.deadline for one in worker.hands)
    yield from (one.absent_in for one in world.watches)
    for order in world.orders:
        yield from (order[1], order[4])
    yield from (one[3] for one in world.wires)
    yield from world.fresh


def _tick_redis(redis: Redis) -> None:
    for number, entry in enumerate(redis.entries):
        if entry is None:
            continue
        entry.quiet, entry.lease = _down(entry.quiet), _down(entry.lease)
        if entry.kept:
            entry.kept = _down(entry.kept)
            if not entry.kept:
                redis.entries[number] = None
    redis.unsure = _down(redis.unsure)


def _down(timer: int) -> int:
    return timer - 1 if 0 < timer < NEVER else timer
