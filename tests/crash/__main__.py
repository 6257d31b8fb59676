"""
Strike a worker everywhere, and judge what is left. ``python -m tests.crash --help``

Exits 1 when a promise was broken, and prints the command that plays the failing trial once more.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from tests.crash.faults import KINDS, Fault
from tests.crash.scenarios import SCENARIOS
from tests.crash.search import Trial, pairs, play, singles, storms
from tests.crash.virtual import VirtualRedis, virtual_redis

#: Trials of ``--all`` with several faults at random.
STORMS = 5000


class Tally:
    """Counts trials, and keeps what they broke."""

    def __init__(self, server: VirtualRedis) -> None:
        self._server = server
        self.trials = 0
        self.broken = 0

    def play(self, trials: Iterator[Trial], label: str) -> None:
        """Play these, and tell how many and how fast."""
        before, broken, started = self.trials, self.broken, time.perf_counter()
        for trial in trials:
            _, found = play(self._server, trial)
            self.trials += 1
            self.broken += bool(found)
            if found:
                _say(f"BROKEN {trial}", *(f"    {one}" for one in found), f"    again: {trial.again}")
        count, seconds = self.trials - before, time.perf_counter() - started
        _say(f"{label:44} {count:6} trials {count / seconds:6.0f}/s {self.broken - broken:4} broken")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options().parse_args(arguments)
    names = options.scenario or sorted(SCENARIOS)
    with virtual_redis() as server:
        _say(f"Redis is {server.name}, seed {options.seed}")
        tally = Tally(server)
        if options.fault:
            tally.play(iter([Trial(names[0], tuple(options.fault))]), f"{names[0]} as given")
        elif options.seconds:
            until = time.monotonic() + options.seconds
            chosen = _shuffled(server, names, options.seed)
            tally.play(_while(chosen, lambda: time.monotonic() < until), f"for {options.seconds:.0f} s")
        else:
            for name in names:
                tally.play(iter([Trial(name, ())]), f"{name}, undisturbed")
                for kind in KINDS:
                    tally.play(singles(server, name, kind), f"{name}, {kind}")
                if options.all:
                    for kind in ("killed", "frozen"):
                        tally.play(pairs(server, name, kind), f"{name}, {kind}, and the next one killed")
            if options.all:
                tally.play(islice(storms(options.seed), STORMS), f"storms of seed {options.seed}")
    _say(f"{tally.trials} trials, {tally.broken} broken")
    return 1 if tally.broken else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--all", action="store_true", help="pairs of deaths and storms as well")
    how.add_argument("--seconds", type=float, help="points, pairs and storms in random order, for so long")
    how.add_argument(
        "--fault", type=Fault.parse, action="append", help='such as "killed after call 7 of worker 2"'
    )
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), action="append", help="only these")
    parser.add_argument("--seed", type=int, default=1, help="of everything random")
    return parser


def _shuffled(server: VirtualRedis, names: Sequence[str], seed: int) -> Iterator[Trial]:
    """Points of all scenarios and kinds, and between them pairs and storms, without end."""
    dice = random.Random(seed)
    points = [one for name in names for kind in KINDS for one in singles(server, name, kind)]
    dice.shuffle(points)
    wild = (one for one in storms(seed) if one.scenario in names)
    for point in points:
        yield point
        yield next(wild)
    yield from wild


def _while(trials: Iterator[Trial], goes_on: Callable[[], bool]) -> Iterator[Trial]:
    for trial in trials:
        if not goes_on():
            return
        yield trial


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
