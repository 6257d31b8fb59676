"""What the adversary will do, decided before it begins: one seed, one script."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Which faults each broker can meet, with how many of them befall a run in ten seconds.
PACE = {
    "freeze": 1.5,
    "roll": 1.0,
    "halt": 0.5,
    "clock": 0.5,
    "redis_kill": 0.6,
    "clients": 1.5,
    "flush": 0.8,
    "memory": 0.6,
    "redis_line": 2.5,
    "broker": 3.5,
    "broker_line": 1.5,
    "broker_kill": 0.3,
    "tokens": 0.3,
}
#: These need a broker behind a wire, and a clock of its own.
_KIS_ONLY = frozenset({"clock", "broker_line", "broker_kill", "tokens"})
_LASTS = {
    "halt": (0.2, 1.0),
    "redis_kill": (0.05, 1.5),
    "memory": (0.2, 1.0),
    "redis_line": (0.3, 6.0),
    "broker": (1.0, 3.0),
    "broker_line": (0.3, 3.0),
    "broker_kill": (0.1, 1.0),
}


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing that the adversary does. Times are seconds from the beginning of the storm."""

    at: float
    kind: str
    worker: int
    #: How long it lasts; 0 for what is over at once.
    lasts: float = 0.0
    #: What there is to choose from in a kind is chosen by this: from 0 up to, but without, 1.
    choice: float = 0.0


def faults_of(broker: str) -> tuple[str, ...]:
    """The kinds of faults that a run with that broker can meet; ``kill`` is always among them."""
    return ("kill", *(kind for kind in PACE if broker == "kis" or kind not in _KIS_ONLY))


def script(
    seed: int, seconds: float, *, workers: int, kills: int, faults: Sequence[str], lease: float
) -> list[Strike]:
    """Everything that will happen, in order. The same arguments give the same script."""
    dice = random.Random(f"adversary {seed}")
    found = list(_kills(dice, seconds, workers, kills)) if "kill" in faults else []
    # Each kind has dice of its own: leaving one out changes nothing about the others.
    for kind in PACE:
        if kind in faults:
            found += _strikes(random.Random(f"{kind} {seed}"), kind, seconds, workers, lease)
    return sorted(found, key=lambda one: (one.at, one.kind, one.worker))


def _kills(dice: random.Random, seconds: float, workers: int, kills: int) -> Iterator[Strike]:
    for number in range(kills):
        # Evenly, so that the pace can be kept; shaken, so that they meet everything.
        at = (number + dice.random()) * seconds / kills
        yield Strike(at, "kill", dice.randrange(workers))


def _strikes(dice: random.Random, kind: str, seconds: float, workers: int, lease: float) -> Iterator[Strike]:
    shortest, longest = (1.5 * lease, 3.0 * lease) if kind == "freeze" else _LASTS.get(kind, (0.0, 0.0))
    for _ in range(max(1, round(PACE[kind] * seconds / 10))):
        at = dice.uniform(0.05, 0.95) * seconds
        lasts = dice.uniform(shortest, longest)
        # Rolling: one after the other, all of them.
        for turn in range(workers if kind == "roll" else 1):
            worker = turn if kind == "roll" else dice.randrange(workers)
            yield Strike(at + turn * lease / 2, kind, worker, lasts, dice.random())
