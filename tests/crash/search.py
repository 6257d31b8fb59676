"""
Where a run can be struck, one trial for each point and each way, and what becomes of it.

A scenario runs once undisturbed, to count the calls that its processes make to Redis and to the broker. Between two
calls a process does nothing that anybody else could see, so these are all the points there are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.crash.faults import KINDS, OPERATOR, Fault
from tests.crash.scenarios import SCENARIOS
from tests.crash.virtual import VirtualRedis
from tests.crash.world import World

#: Kinds that mean nothing to an operator's command, which holds nothing and is not worked on by others.
_FOR_WORKERS = ("frozen", "overtaken")
#: Faults of a storm, at most; and the calls that they strike at.
_STORM, _STORM_CALLS = 5, 60


@dataclass(frozen=True)
class Trial:
    """One scenario, and what befalls it."""

    scenario: str
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return f"{self.scenario}: {', '.join(map(str, self.faults)) or 'undisturbed'}"

    @property
    def again(self) -> str:
        """The command that plays it once more."""
        faults = "".join(f' --fault "{one}"' for one in self.faults)
        return f"python -m tests.crash --scenario {self.scenario}{faults}"


def play(server: VirtualRedis, trial: Trial) -> tuple[World, list[str]]:
    """Run a trial. Returns its world, and every promise that it broke, in words; empty: all hold."""
    world = World(server, SCENARIOS[trial.scenario], *trial.faults)
    try:
        history = world.run()
    except Exception as error:
        error.add_note(f"in {trial}; again with: {trial.again}")
        if isinstance(error, AssertionError):
            return world, [f"P3: {error}"]
        raise
    found = world.broken(history)
    if not trial.faults:
        outcomes = {one.intent_id: str(one.outcome) for one in history.responses}
        if outcomes != dict(SCENARIOS[trial.scenario].outcomes):
            found.append(f"undisturbed it ends otherwise than the scenario says: {outcomes}")
    return world, found


def singles(server: VirtualRedis, scenario: str, kind: str) -> Iterator[Trial]:
    """One fault of this kind, at every point of every process of the scenario."""
    world, _ = play(server, Trial(scenario, ()))
    for actor, wire in sorted(world.wires.items()):
        if actor == OPERATOR and kind in _FOR_WORKERS:
            continue
        for number in range(1, wire.calls + 1):
            for after in _sides(kind, number):
                yield Trial(scenario, (Fault(number, after, kind, actor),))


def _sides(kind: str, number: int) -> tuple[bool, ...]:
    """What a process dies of before a call is what it dies of after the one before it."""
    if kind == "killed":
        return (False, True) if number == 1 else (True,)
    return (False, True) if KINDS[kind] else (False,)


def pairs(server: VirtualRedis, scenario: str, first: str = "killed") -> Iterator[Trial]:
    """
    Two faults: the first worker is struck so at every point, and after each of these the next one dies at every point
    of its life. Where the first is frozen, that is when it goes on: into what another has left half done.
    """
    for one in list(singles(server, scenario, first)):
        if one.faults[0].actor != 1:
            continue
        world, _ = play(server, one)
        calls = world.wires[2].calls if 2 in world.wires else 0
        for number in range(1, calls + 1):
            yield Trial(scenario, (*one.faults, Fault(number, True, "killed", 2)))


def storms(seed: int) -> Iterator[Trial]:
    """Without end: two to five faults of any kind, on anybody, in any scenario."""
    dice = random.Random(seed)
    while True:
        scenario = dice.choice(sorted(SCENARIOS))
        faults = tuple(
            Fault(
                # Early calls more often: most lives are short.
                1 + int(_STORM_CALLS * dice.random() ** 2),
                dice.random() < 0.7,
                dice.choice([*KINDS, "killed", "killed"]),
                dice.choice([OPERATOR, 1, 1, 1, 2, 2, 3, 4]),
            )
            for _ in range(dice.randint(2, _STORM))
        )
        yield Trial(scenario, tuple({(one.actor, one.number, one.after): one for one in faults}.values()))
