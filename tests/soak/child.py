"""What is different about a worker of the soak, done before it begins: its clock, and how slow it takes its broker for."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime, timedelta

#: Seconds by which the wall clock of the process is wrong.
SHIFT = "SOAK_CLOCK_SHIFT"
#: Set where KIS shall be taken for a quicker server than it is: its lists show orders after two seconds instead of 15,
#: may be read more often than once a second, and a token may be had every two seconds. The simulator is told the same.
QUICK = "SOAK_QUICK_BROKER"
QUICK_LAG = 2.0


def prepare(environ: MutableMapping[str, str]) -> None:
    """Make this process what the environment says. The variables are taken out: the product knows no such names."""
    shift = float(environ.pop(SHIFT, "0"))
    if shift:
        _shift_clock(timedelta(seconds=shift))
    if environ.pop(QUICK, ""):
        _take_broker_for_quick()


def _shift_clock(by: timedelta) -> None:
    from worker.clock import SystemClock

    right = SystemClock.now

    def wrong(clock: SystemClock) -> datetime:
        return right(clock) + by

    SystemClock.now = wrong  # type: ignore[method-assign]


def _take_broker_for_quick() -> None:
    from worker.brokers.kis import auth, facts, shared, turns

    facts.VISIBILITY_LAG = dict.fromkeys(facts.VISIBILITY_LAG, QUICK_LAG)  # type: ignore[misc]
    auth.TOKEN_INTERVAL = shared.TOKEN_INTERVAL = 2.0  # type: ignore[misc]
    turns.TURN_INTERVAL = shared.TURN_INTERVAL = 0.05  # type: ignore[misc]
