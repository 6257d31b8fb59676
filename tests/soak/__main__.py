"""
Real workers, a real Redis, a broker, and somebody who means them ill. ``python -m tests.soak --help``

Prints one line a second, and at the end what was done, how long everything took to come to rest, and the verdict. Exits
1 when a promise was broken, keeps the evidence, and prints the command that plays the same adversary once more.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.soak.plan import Plan, Result
from tests.soak.script import faults_of
from tests.soak.storm import run


def main(arguments: Sequence[str] | None = None) -> int:
    given = _options().parse_args(arguments)
    # Nothing is left running, however it ends.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    plan = _plan(given)
    _say(
        f"seed {plan.seed}, {plan.broker}, {plan.workers} workers, {plan.seconds:g} s, faults: {', '.join(plan.faults)}"
    )
    result = run(plan, _say if not given.quiet else lambda _: None)
    _report(result)
    if given.record:
        with given.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result.document(), default=str) + "\n")
    return 1 if result.broken else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the adversary and of the strategy; chosen when absent")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long the storm lasts")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--broker", choices=("kis", "simulated"), default="kis")
    parser.add_argument(
        "--faults", help="only these, separated by commas; all that the broker can meet when absent"
    )
    parser.add_argument("--kills", type=int, help="SIGKILLs of workers; one every two seconds when absent")
    parser.add_argument("--rate", type=float, help="intents a second; 3 with kis, else 20")
    parser.add_argument("--exec", action="store_true", help="start each process afresh instead of forking it")
    parser.add_argument("--quiet", action="store_true", help="no line each second")
    parser.add_argument("--record", type=Path, help="a file that gets one JSON line with the result")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    known = faults_of(given.broker)
    faults = tuple(given.faults.split(",")) if given.faults else known
    if unknown := set(faults) - set(known):
        raise SystemExit(
            f"no such fault with {given.broker}: {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return Plan(
        seed=random.randrange(10**6) if given.seed is None else given.seed,
        seconds=given.seconds,
        broker=given.broker,
        workers=given.workers,
        kills=max(1, round(given.seconds / 2)) if given.kills is None else given.kills,
        faults=faults,
        rate=given.rate or (3.0 if given.broker == "kis" else 20.0),
        exec=given.exec,
    )


def _report(result: Result) -> None:
    plan = result.plan
    for title, counts in (
        ("faults", result.faults),
        ("seen", result.counts),
        ("outcomes", result.outcomes),
    ):
        _say(f"{title}:", *(f"  {count:7}  {name}" for name, count in sorted(counts.items())))
    _say(f"at rest {result.rest:.1f} s after the storm")
    if not result.broken:
        _say(f"seed {plan.seed}: every promise held")
        return
    words = ["python", "-m", "tests.soak", "--seed", str(plan.seed), "--seconds", f"{plan.seconds:g}"]
    words += ["--broker", plan.broker, "--workers", str(plan.workers), "--kills", str(plan.kills)]
    words += [
        "--rate",
        f"{plan.rate:g}",
        "--faults",
        ",".join(plan.faults),
        *(["--exec"] if plan.exec else []),
    ]
    _say(f"seed {plan.seed}: BROKEN", *(f"  {one}" for one in result.broken[:40]))
    _say(f"evidence: {result.evidence}", f"again: {shlex.join(words)}")


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
